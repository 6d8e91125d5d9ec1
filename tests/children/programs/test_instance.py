"""One run of a program: its minder ends all that it has started."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from django_wspbus.children.programs.instance import Instance, Launcher
from django_wspbus.children.programs.output import Output
from django_wspbus.conf import ProcessSettings
from django_wspbus.process.switchboard import Switchboard
from django_wspbus.wspbus import Refusal

from ...processes import DEADLINE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are found in /proc")

ESCAPES = "setsid sleep 1000 & (setsid sh -c 'sleep 1001 & exec sleep 1002' &) ; echo up; "
"""A child in a session of its own, and two whose parents have ended."""


class Bench:
    """Programs under test, and their output."""

    def __init__(self) -> None:
        self.switchboard = Switchboard()
        self.lines: list[str] = []
        self.changed = threading.Condition()
        null = os.open(os.devnull, os.O_WRONLY)
        self.output = Output(["test"], self._note, null)
        self.null = null
        self.launcher = Launcher(
            self.switchboard,
            answer=lambda link, message: None,
            ended=lambda *ended: None,
            reported=lambda *report: None,
            show=self.output.show,
        )
        self.instances: list[Instance] = []

    def _note(self, pid: int, name: str, text: str) -> None:
        with self.changed:
            self.lines.append(text)
            self.changed.notify_all()

    def _note_change(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def run(self, *words: str, **keys: Any) -> Instance:
        settings = ProcessSettings(alias="test", program=words, **keys)
        instance = self.launcher.launch(settings, 1, "test", self._note_change)
        self.instances.append(instance)
        return instance

    def sh(self, script: str, **keys: Any) -> Instance:
        return self.run("sh", "-c", script, **keys)

    def await_that(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE), self.lines

    def await_line(self, text: str) -> None:
        self.await_that(lambda: text in self.lines)

    def await_end(self, instance: Instance) -> str:
        self.await_that(lambda: instance.ended)
        return instance.how_ended()

    def close(self) -> None:
        for instance in self.instances:
            instance.close()
        self.output.close()
        self.switchboard.close()
        os.close(self.null)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def below(instance: Instance, count: int = 1) -> list[psutil.Process]:
    """Return the processes of a program, once there are so many."""
    minder, deadline = psutil.Process(instance.pid), time.monotonic() + DEADLINE
    while len(found := minder.children(recursive=True)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def await_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, DEADLINE)
    assert alive == []


def test_it_ends_with_the_status_of_its_program(bench: Bench) -> None:
    instance = bench.sh("echo $0 $PYTHONUNBUFFERED; exit 7")
    assert bench.await_end(instance) == "exited with status 7"
    bench.await_line("sh 1")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_it_ends_by_the_signal_that_has_ended_its_program(bench: Bench, number: signal.Signals) -> None:
    instance = bench.sh(f"kill -{number.value} $$")
    assert bench.await_end(instance) == f"was killed by {number.name}"


def test_a_program_that_does_not_exist_says_so_and_has_the_status_of_a_shell(bench: Bench) -> None:
    instance = bench.run("no-such-program")
    assert bench.await_end(instance) == "exited with status 127"
    bench.await_line("no-such-program: No such file or directory")


def test_a_program_has_a_group_of_its_own_default_signals_and_an_input_without_an_end(bench: Bench) -> None:
    source = (
        "import os, select, signal; "
        "mask = signal.pthread_sigmask(signal.SIG_BLOCK, ()); "
        "ignored = [n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN]; "
        "readable = select.select([0], [], [], 0)[0]; "
        "files = len(os.listdir('/proc/self/fd')); "
        "print(os.getpgid(0) == os.getpid(), mask, sorted(map(int, ignored)), readable, files)"
    )
    instance = bench.run(sys.executable, "-c", source)
    assert bench.await_end(instance) == "exited with status 0"
    # Python itself ignores SIGPIPE and SIGXFSZ. Open are the streams, the pair that leads to the site, /proc.
    bench.await_line(f"True set() [{signal.SIGPIPE:d}, {signal.SIGXFSZ:d}] [] 5")


def test_stop_sends_the_stop_signal_to_the_program_alone(bench: Bench) -> None:
    instance = bench.sh(
        "trap 'echo stopping; wait; exit 0' INT; sh -c 'trap \"echo child\" INT; echo up; sleep 0.3' & wait",
        stop_signal="SIGINT",
    )
    bench.await_line("up")
    instance.stop(DEADLINE)
    assert bench.await_end(instance) == "exited with status 0"
    assert "stopping" in bench.lines
    assert "child" not in bench.lines


def test_what_the_program_has_started_ends_with_it(bench: Bench) -> None:
    instance = bench.sh(f"{ESCAPES} sleep 1003")
    bench.await_line("up")
    bench.await_that(lambda: instance.program is not None)
    processes = below(instance, count=5)
    os.kill(instance.program or 0, signal.SIGKILL)
    assert bench.await_end(instance) == "was killed by SIGKILL"
    await_gone(processes)


def test_what_does_not_stop_in_time_is_killed(bench: Bench) -> None:
    instance = bench.sh(f"trap '' TERM; {ESCAPES} sleep 1003")
    bench.await_line("up")
    processes = below(instance)
    instance.stop(DEADLINE)
    instance.stop(0.1)  # shortens
    instance.stop(DEADLINE)  # does not lengthen
    assert bench.await_end(instance) == "was killed by SIGKILL"
    await_gone(processes)


def test_sigterm_to_the_minder_stops_the_program_with_its_own_timeout(bench: Bench) -> None:
    instance = bench.sh("trap '' TERM; echo up; sleep 1003", stop_timeout=0.1)
    bench.await_line("up")
    instance.send_signal(signal.SIGTERM)
    assert bench.await_end(instance) == "was killed by SIGKILL"


def test_the_minder_outlives_signals_of_a_terminal(bench: Bench) -> None:
    instance = bench.sh("echo up; sleep 1003")
    bench.await_line("up")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        instance.send_signal(number)
    instance.stop(DEADLINE)
    assert bench.await_end(instance) == "was killed by SIGTERM"


def test_kill_ends_everything_although_the_minder_is_stopped(bench: Bench) -> None:
    instance = bench.sh(f"{ESCAPES} sleep 1003")
    bench.await_line("up")
    processes = below(instance)
    instance.send_signal(signal.SIGSTOP)
    instance.kill()
    bench.await_end(instance)
    await_gone(processes)


def test_a_program_that_forks_all_the_time_is_killed(bench: Bench) -> None:
    instance = bench.sh("echo up; while :; do setsid sleep 0.05 & sleep 0.01; done")
    bench.await_line("up")
    time.sleep(0.2)
    processes = below(instance)
    instance.kill()
    bench.await_end(instance)
    await_gone(processes)


def test_what_a_killed_minder_leaves_is_killed_in_any_session(bench: Bench) -> None:
    instance = bench.sh(ESCAPES + "sleep 1003")
    bench.await_line("up")
    bench.await_that(lambda: instance.program is not None)
    processes = below(instance, 5)
    os.kill(instance.pid, signal.SIGKILL)
    bench.await_end(instance)
    instance.close()
    await_gone(processes)


def test_a_directory_that_is_gone_is_a_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from django_wspbus.successor import start
    from django_wspbus.successor.invocation import Invocation

    invocation = Invocation(sys.executable, [], ["manage.py", "runbus"], "/no/such/directory", {})
    monkeypatch.setattr(start, "original", lambda: invocation)
    with pytest.raises(Refusal, match="No such file or directory: "):
        bench.sh("echo up")


def test_without_a_free_descriptor_it_is_a_refusal_and_nothing_stays_open(bench: Bench) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    before = set(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 5, limits[1]))
    try:
        with pytest.raises(Refusal, match="Too many open files"):
            bench.sh("echo up")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert set(os.listdir("/proc/self/fd")) <= before
