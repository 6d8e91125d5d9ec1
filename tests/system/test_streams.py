"""A site that is started with standard input, output or error closed."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..processes import Running
from ..projects import GUNICORN, THREADED, Project
from ..servers.conftest import ask
from ..servers.load import await_that

ALL = "<&- >&- 2>&-"


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a site that has no output."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"unix:{folder}/socket"


def answers(address: str) -> bool:
    try:
        return ask(address)[0] == 200
    except OSError:
        return False


def streams_of(process: psutil.Process) -> list[str]:
    try:
        return [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
    except OSError:  # it has ended meanwhile
        return [os.devnull] * 3


def serve(project: Project, closed: str, *arguments: str) -> Running:
    command = f"exec {sys.executable} manage.py runbus {' '.join(arguments)} {closed}"
    return project.start("/bin/sh", "-c", command)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("server", "closed", "debug"),
    [
        (GUNICORN, ALL, False),
        (THREADED, ALL, False),
        (GUNICORN, ALL, True),
        (THREADED, ALL, True),
        *((GUNICORN, closed, False) for closed in ("<&-", ">&-", "2>&-")),
    ],
)
def test_it_serves_and_gives_none_of_their_numbers_away(
    project: Project, address: str, server: dict[str, Any], closed: str, debug: bool
) -> None:
    project.configure(DEBUG=debug, WSPBUS={"SERVERS": {"default": {**server, "BIND": address}}})
    with serve(project, closed) as site:
        for number in (None, signal.SIGUSR2):
            if number is not None:
                site.send(number)
                await_that(lambda: len(project.notes("site start")) == 2)
            await_that(lambda: answers(address))
            for process in site.members():
                assert not any(stream.startswith("socket") for stream in streams_of(process))
                if closed == ALL:
                    assert streams_of(process) == [os.devnull] * 3
        assert site.stop() == 0


@pytest.mark.extended
def test_a_daemon_may_be_started_without_streams(project: Project, address: str) -> None:
    project.configure(WSPBUS={"SERVERS": {"default": {**GUNICORN, "BIND": address}}, "PIDFILE": "site.pid"})
    with serve(project, ALL, "--daemonize") as site:
        assert site.wait() == 0
        assert answers(address)
        pid = int(Path(project.root / "site.pid").read_text())
        assert streams_of(psutil.Process(pid)) == [os.devnull] * 3
        os.kill(pid, signal.SIGTERM)
        await_that(lambda: not site.members())
