"""The reader of the log is gone: the site and its workers serve on, and do not complain in a loop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psutil
import pytest

from tests.processes import DEADLINE, Running
from tests.projects import Project
from tests.servers.conftest import KINDS, ask, configure
from tests.servers.load import await_that

pytestmark = pytest.mark.extended

CONSOLE = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "DEBUG"},
}

URLS = """
import logging
import os
import sys

from django.http import HttpResponse
from django.urls import path


def answer(request):
    logging.getLogger("shop").error("answered")
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("", answer)]
"""


class Unread(NamedTuple):
    """A site whose output no process reads any more."""

    process: subprocess.Popen[bytes]
    address: str


@contextmanager
def unread(project: Project, stderr: str) -> Iterator[Unread]:
    """Run a site, and close its output once it has named its address.

    ``stderr``: "pipe" if it goes to the same pipe, "file" for ``err.log``.
    """
    reader, writer = os.pipe()
    mark = Running("")  # finds its processes
    env = {**mark.env, **project.environment}
    del env["PYTHONUNBUFFERED"]
    with open(project.root / "err.log", "wb") as errors:
        site = subprocess.Popen(
            [sys.executable, project.manage, "runbus"],
            env=env,
            cwd=project.root,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer if stderr == "pipe" else errors,
            start_new_session=True,
        )
    os.close(writer)
    try:
        with open(reader) as output:
            lines = [output.readline()]
            while "Quit with" not in lines[-1]:
                lines.append(output.readline())
                assert lines[-1], lines
        found = re.search(r"http://(\S+)/ ", "".join(lines))
        assert found is not None
        yield Unread(site, found[1])
        site.send_signal(signal.SIGTERM)
        assert site.wait(DEADLINE) == 0
        await_that(lambda: mark.members() == [], mark.members)
    finally:
        for process in mark.members():
            process.kill()
        site.wait()


@pytest.mark.parametrize(
    ("kind", "stderr"), [("gthread", "pipe"), ("gthread", "file"), ("threaded", "pipe"), ("sync", "pipe")]
)
def test_a_site_serves_on_after_the_reader_of_its_output_has_gone(
    project: Project, kind: str, stderr: str
) -> None:
    project.write("shop/urls.py", URLS)
    configure(project, {"default": KINDS[kind]})
    settings = project.root / "settings.py"
    settings.write_text(settings.read_text() + f"LOGGING = {CONSOLE!r}\n")
    with unread(project, stderr) as (process, address):
        answers = {ask(address)[1] for _ in range(20)}
        process.send_signal(signal.SIGUSR1)
        if kind == "threaded":
            assert answers == {str(process.pid)}
        else:
            project.expect_note("worker stop", KINDS[kind]["OPTIONS"]["workers"])
            psutil.Process(int(ask(address)[1])).kill()
        process.send_signal(signal.SIGUSR2)
        project.expect_note("site start", count=2)
        await_that(lambda: process.poll() is not None or ask(address)[0] == 200)
        assert process.poll() is None
    assert "Traceback" not in (project.root / "err.log").read_text()
