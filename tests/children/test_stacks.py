"""The stacks of other processes, also of those that do not respond."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from django_wspbus.children.stacks import Dump, NoStacks, read_stacks, split, stack_of
from django_wspbus.process.dump import STACKS_WITHOUT_GIL
from django_wspbus.process.record import Record
from django_wspbus.system.processes import state_of
from tests.servers.load import await_that


def hold_the_gil() -> None:
    while True:  # a signal ends the sleep
        ctypes.PyDLL(None).sleep(60)


def wait() -> None:
    threading.Event().wait()


def read() -> None:
    os.read(os.pipe()[0], 1)


def wait_without_faulthandler() -> None:
    assert STACKS_WITHOUT_GIL is not None
    signal.signal(STACKS_WITHOUT_GIL, signal.SIG_DFL)  # which would end the process
    wait()


@contextmanager
def process(
    work: Callable[[], object], *, registers: bool = True, interrupts: bool = True
) -> Iterator[tuple[int, Record]]:
    """Fork a process that works until it is killed, and yield its PID and its record."""
    record = Record.make(1)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        if registers:
            record.write_stacks_on_signal(interrupts=interrupts)
        record.slots.writers[0].begin(threading.get_ident(), "GET /", time.monotonic())
        os.write(writer, b"r")
        work()
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"r"
        await_that(lambda: state_of(pid) == "S")
        yield pid, record
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        record.close()
        os.close(reader)
        os.close(writer)


def test_a_process_in_which_c_code_holds_the_gil_shows_its_stacks() -> None:
    with process(hold_the_gil) as (pid, record):
        ((found, stacks),) = read_stacks([(pid, record)])
        (request,) = record.slots.in_flight()

    assert found == pid
    assert isinstance(stacks, str)
    assert "in hold_the_gil" in str(stack_of(stacks, request.thread))
    assert stack_of(stacks, 1) is None


def test_one_that_can_run_python_code_writes_its_stacks_itself() -> None:
    # faulthandler would read the frames of threads that run meanwhile, and may crash the process.
    with process(wait_without_faulthandler) as each:
        for _ in range(2):
            ((_, stacks),) = read_stacks([each])
            assert "in wait_without_faulthandler" in str(stacks)
            assert "write_stacks" not in str(stacks)


def test_a_system_call_is_not_interrupted_for_the_stacks() -> None:
    with process(read, interrupts=False) as each:
        ((_, stacks),) = read_stacks([each])
        assert "in read" in str(stacks)


def test_all_processes_show_their_stacks_at_the_same_time() -> None:
    with process(wait) as one, process(hold_the_gil) as other:
        for _ in range(3):
            stacks = dict(read_stacks([one, other]))
            assert stacks.keys() == {one[0], other[0]}
            assert all(str(each).count("most recent call first") == 1 for each in stacks.values())


def test_a_process_that_does_not_handle_the_signal_gets_none() -> None:
    with process(wait, registers=False) as (pid, record):
        ((_, error),) = read_stacks([(pid, record)])
        assert isinstance(error, NoStacks)
        await_that(lambda: state_of(pid) == "S")


def test_a_process_that_is_stopped_is_named_at_once() -> None:
    with process(wait) as (pid, record):
        os.kill(pid, signal.SIGSTOP)
        await_that(lambda: state_of(pid) == "T")
        with pytest.raises(NoStacks, match=r"does not respond: it is stopped \(SIGSTOP\)"):
            Dump(pid, record).look()
        os.kill(pid, signal.SIGCONT)


def test_a_process_that_has_ended_has_no_stacks() -> None:
    with process(wait) as (pid, record):
        record.close()
        with pytest.raises(NoStacks, match="it has ended"):
            Dump(pid, record).look()


def test_two_dumps_of_a_process_do_not_mix() -> None:
    with process(wait) as (pid, record):
        first, second = Dump(pid, record), Dump(pid, record)
        assert first.look() is None
        assert second.look() is None  # it waits for the first one
        found: list[str] = []
        for dump in (first, second):
            while (stacks := dump.look()) is None:
                time.sleep(0.01)
            found.append(stacks)
            dump.close()

    assert [stacks.count("most recent call first") for stacks in found] == [1, 1]


def test_the_stacks_are_divided_by_thread() -> None:
    stacks = split(
        "Thread 0x00007f01 (most recent call first):\n"
        '  File "a.py", line 1 in a\n'
        "\n"
        "Current thread 0x00007f02 (most recent call first):\n"
        '  File "b.py", line 2 in b\n'
    )

    assert stacks == {
        0x7F01: 'Thread 0x00007f01 (most recent call first):\n  File "a.py", line 1 in a',
        0x7F02: 'Current thread 0x00007f02 (most recent call first):\n  File "b.py", line 2 in b',
    }
