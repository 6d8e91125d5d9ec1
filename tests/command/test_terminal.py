"""The command on a terminal: pleasant with rich, plain without it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.processes import DEADLINE

from .conftest import PROGRAM

WELL = {"well": True, "condition": "ready", "since": 3.2, "pid": 4101, "project": "[red]\x1b[2J"}
REQUEST = {"path": "/[bold]x", "age": 1.5, "idle": 1.5, "method": "GET", "pid": 1, "stuck": True}
BOLD = "\x1b[1"

WITHOUT_RICH = """\
import sys
import termios
sys.modules["rich"] = None
from django_wspbus.__main__ import main
main()
"""


@contextmanager
def on_terminal(*command: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[str]]]:
    """Run a program on a terminal; yield it, and what it writes."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, 120))
    environment = {"TERM": "xterm-256color", **env}
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ) as program:
        os.close(terminal)
        try:
            yield program, read(screen)
        finally:
            program.kill()
            os.close(screen)


def read(screen: int) -> Iterator[str]:
    """Yield what the program writes, in parts."""
    while True:
        try:
            yield os.read(screen, 65536).decode(errors="replace")
        except OSError:  # the program has ended
            return


def shown(*command: str, **env: str) -> str:
    with on_terminal(*command, **env) as (program, parts):
        text = "".join(parts)
        program.wait(DEADLINE)
    return text


def test_rich_shows_colours_and_tables_and_obeys_nothing_from_outside(play):
    site = play(status=WELL, requests={"requests": [REQUEST]})
    text = shown(*PROGRAM, "status", "--socket", site.name)
    assert f"{BOLD};32mWell: ready, for 3.2 s" in text
    assert r"[red]\x1b[2J" in text
    text = shown(*PROGRAM, "requests", "--socket", site.name)
    assert "/[bold]x" in text
    assert BOLD in text
    assert "─" in text


@pytest.mark.parametrize(
    ("program", "env"),
    [
        ([sys.executable, "-c", WITHOUT_RICH], {}),
        (PROGRAM, {"TERM": "dumb"}),
    ],
    ids=["without rich", "a simple terminal"],
)
def test_the_output_is_plain_without_rich_and_on_a_simple_terminal(play, program, env):
    site = play(status=WELL)
    text = shown(*program, "status", "--socket", site.name, **env)
    assert text.splitlines()[0] == "Well: ready, for 3.2 s"
    assert "\x1b" not in text


def test_no_color_is_respected(play):
    text = shown(*PROGRAM, "status", "--socket", play(status=WELL).name, NO_COLOR="1")
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", text) is None


def test_json_has_no_colours(play):
    text = shown(*PROGRAM, "status", "--json", "--socket", play(status=WELL).name)
    assert "\x1b" not in text


@pytest.mark.extended
def test_watch_replaces_the_report_in_place_until_control_c(play):
    site = play(status=WELL)
    with on_terminal(*PROGRAM, "status", "--watch", "--socket", site.name) as (program, parts):
        text = ""
        while text.count("Well: ready") < 2:
            text += next(parts)
        program.send_signal(signal.SIGINT)
        text += "".join(parts)
        assert program.wait(DEADLINE) == 130
    assert "Traceback" not in text
    assert "\x1b[?1049l" in text  # the screen is as it was before
