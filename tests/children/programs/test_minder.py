"""The program of the minder, in an interpreter that could import more than it does."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from ...processes import DEADLINE
from ...servers.load import await_that

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are found in /proc")

RUN = (
    "import json, sys; from django_wspbus.children.programs.minder import main; main(json.loads(sys.argv[1]))"
)

Minder = tuple["subprocess.Popen[str]", socket.socket]


@pytest.fixture
def mind() -> Iterator[Callable[..., Minder]]:
    """Start a shell script below a minder; return the minder, and the site's end of its link."""
    with ExitStack() as at_end:

        def mind(*words: str, stop_timeout: float = DEADLINE) -> Minder:
            link, theirs = (at_end.enter_context(each) for each in socket.socketpair())
            pair, _ = (at_end.enter_context(each) for each in socket.socketpair())
            values = {
                "words": words,
                "link": theirs.fileno(),
                "pair": pair.fileno(),
                "stop_signal": int(signal.SIGTERM),
                "stop_timeout": stop_timeout,
            }
            process = subprocess.Popen(
                [sys.executable, "-c", RUN, json.dumps(values)],
                pass_fds=[theirs.fileno(), pair.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            at_end.enter_context(process)
            at_end.callback(process.kill)
            theirs.close()
            link.settimeout(DEADLINE)
            return process, link

        yield mind


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_it_ends_with_the_status_of_the_program_once_all_that_it_has_started_is_gone(mind):
    process, link = mind("sh", "-c", "setsid sleep 1000 & echo $!; exit 3")
    left = psutil.Process(int(first_line(process)))
    program = int(link.recv(100))
    assert process.wait(DEADLINE) == 3
    assert not left.is_running()
    assert not psutil.pid_exists(program)


@pytest.mark.parametrize("order", ["link", "SIGTERM"])
def test_an_order_sends_the_stop_signal_once_and_the_program_may_end_in_its_own_way(mind, order):
    process, link = mind("sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done")
    assert first_line(process) == "up"
    if order == "link":
        link.sendall(b"30.0\n20.0\n")
    else:
        process.terminate()
    assert process.wait(DEADLINE) == 7
    assert process.communicate(timeout=DEADLINE)[0] == "bye\n"


@pytest.mark.parametrize("end", ["the time is up", "the site ends"])
def test_a_program_that_goes_on_is_killed(mind, end):
    process, link = mind("sh", "-c", "trap '' TERM; setsid sleep 1000 & echo $!; wait; sleep 1000")
    left = psutil.Process(int(first_line(process)))
    if end == "the time is up":
        link.sendall(b"0.05\n")
    else:
        link.close()
    assert process.wait(DEADLINE) == -signal.SIGKILL
    await_that(lambda: not left.is_running())


def test_a_program_that_is_not_there_is_named(mind):
    process, _ = mind("no-such-program")
    assert process.wait(DEADLINE) == 127
    assert first_line(process) == "no-such-program: No such file or directory"
