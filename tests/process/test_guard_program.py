"""The program of the guard, beside a site that is a script of a few lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from django_wspbus.process.guard_program import SAME_REQUEST, main
from tests.processes import DEADLINE
from tests.servers.load import await_that

SITE = """\
import os, signal, socket, subprocess, sys

ours, theirs = socket.socketpair()
theirs.setblocking(False)
signal.signal(signal.SIGTERM, lambda *_: None)
signal.set_wakeup_fd(theirs.fileno())
run = "import sys; from django_wspbus.process.guard_program import main; main(*map(eval, sys.argv[1:]))"
guard = subprocess.Popen(
    [sys.executable, "-c", run, str(os.getpid()), str(ours.fileno()), sys.argv[1], "[signal.SIGTERM]"],
    pass_fds=[ours.fileno()],
    stdout=subprocess.PIPE,
)
guard.stdout.read()  # the guard closes it once it watches
print(guard.pid, flush=True)
sys.stdin.read()
""".replace("[signal.SIGTERM]", f"[{int(signal.SIGTERM)}]")

Start = Callable[..., tuple["subprocess.Popen[str]", psutil.Process]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a site with a guard that ends it some seconds after SIGTERM; return both processes."""
    with ExitStack() as stack:

        def start(timeout: float, before: str = "") -> tuple[subprocess.Popen[str], psutil.Process]:
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            command = [sys.executable, "-c", f"import signal\n{before}\n{SITE}", str(timeout)]
            site = stack.enter_context(subprocess.Popen(command, text=True, **pipes))
            stack.callback(site.kill)
            assert site.stdout is not None
            return site, psutil.Process(int(site.stdout.readline()))

        yield start


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_it_ends_with_the_site(start: Start) -> None:
    site, guard = start(DEADLINE)
    assert site.communicate(timeout=DEADLINE) == ("", "")
    assert site.returncode == 0
    await_that(lambda: has_ended(guard))


def test_a_site_that_has_not_ended_in_time_is_aborted(start: Start) -> None:
    site, guard = start(0.1)
    site.send_signal(signal.SIGTERM)
    assert site.wait(DEADLINE) == -signal.SIGABRT
    assert site.communicate()[1] == f"Site process {site.pid} does not react to signals: ending it.\n"
    await_that(lambda: has_ended(guard))


def test_a_second_signal_shortens_the_time_of_a_site_which_is_killed_if_it_goes_on(start: Start) -> None:
    site, _ = start(100 * DEADLINE, "signal.signal(signal.SIGABRT, signal.SIG_IGN)")
    deadline = time.monotonic() + DEADLINE
    while site.poll() is None:  # a guard that sees the first two at once takes them for one request
        assert time.monotonic() < deadline
        site.send_signal(signal.SIGTERM)
        time.sleep(2 * SAME_REQUEST)
    assert site.returncode == -signal.SIGKILL


def test_it_watches_its_parent_only() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            main(other.pid, -1, 0, [])
            assert other.poll() is None
        finally:
            other.kill()
    main(2**22 + 1, -1, 0, [])
    assert os.fstat(1)
