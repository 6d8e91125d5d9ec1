"""The stacks of a site process that does not answer, here a program of the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from django_wspbus.control import address
from django_wspbus.control.conversation import ControlError
from django_wspbus.control.finding import FoundSite
from django_wspbus.control.hanging import find_process, read_stacks, stacks_in_place_of_site
from django_wspbus.process import dump
from django_wspbus.process.dump import STACKS_SIGNAL, STACKS_WITHOUT_GIL
from django_wspbus.system.processes import state_of
from tests.processes import DEADLINE
from tests.servers.load import await_that

HANGS = """\
import sys
from django_wspbus.control.hanging import write_stacks_on_signal

def hang():
    print("ready", flush=True)
    sys.stdin.read()

write_stacks_on_signal()
"""


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a program that hangs, and wait until it does; it is not too slow to write its stacks."""
    monkeypatch.setattr(dump, "DUMP_TIMEOUT", DEADLINE)
    with ExitStack() as stack:

        def start(source: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", f"{HANGS}{source}"]
            program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(program.communicate)
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            return program

        yield start


def test_the_stacks_are_read_as_often_as_they_are_asked_for(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    program = start("hang()")
    found = [read_stacks(program.pid) for _ in range(2)]
    assert [each.count("in hang") for each in found] == [1, 1]
    (process,) = stacks_in_place_of_site(program.pid)["processes"]
    assert process["stacks"].count("in hang") == 1
    assert (process["pid"], process["role"], process["error"]) == (program.pid, "site", None)


def test_a_process_that_is_stopped_is_named_and_left_alone(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    program = start("hang()")
    program.send_signal(signal.SIGSTOP)
    try:
        await_that(lambda: state_of(program.pid) in ("T", "t"))
        with pytest.raises(ControlError, match=f"It is stopped .*`kill -CONT {program.pid}`"):
            read_stacks(program.pid)
    finally:
        program.send_signal(signal.SIGCONT)


def test_a_process_that_does_not_react_is_given_up(
    start: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "DUMP_TIMEOUT", 0.1)
    blocked = [STACKS_SIGNAL, STACKS_WITHOUT_GIL]
    program = start(f"import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {blocked})\nhang()")
    with pytest.raises(ControlError, match="It does not react to signals"):
        read_stacks(program.pid)


def test_the_signal_is_not_sent_to_a_process_that_it_would_end(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    program = start(f"import signal\nsignal.signal({STACKS_SIGNAL}, signal.SIG_DFL)\nhang()")
    with pytest.raises(ControlError, match="It writes no stacks: it is starting"):
        read_stacks(program.pid)
    assert program.communicate() == ("", None)
    assert program.returncode == 0


def test_a_process_without_stacks_and_none_at_all_are_told_apart() -> None:
    with pytest.raises(ControlError, match="in development its code does not boot"):
        read_stacks(os.getpid())
    (process,) = stacks_in_place_of_site(2**22 + 1)["processes"]
    assert process["stacks"] is None
    assert "There is no process 4194305 here" in process["error"]


def test_the_process_is_that_of_the_socket_and_not_the_one_of_its_name() -> None:
    sock, name = address.listen(2**22 + 1)  # as a site in another namespace of PIDs names itself
    site = FoundSite(name, os.geteuid(), 2**22 + 1)
    with sock:
        assert find_process(site) == os.getpid()
    assert find_process(site) == 2**22 + 1
