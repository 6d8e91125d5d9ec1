"""The executor of one thread, without a server around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from django_wspbus.servers.threaded.one_thread import OneThread
from tests.processes import DEADLINE


@pytest.fixture
def executor() -> Iterator[OneThread]:
    executor = OneThread("In turn")
    yield executor
    executor.end()
    executor.thread.join(DEADLINE)
    assert not executor.thread.is_alive()


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def test_what_a_call_raises_is_raised_in_the_caller_and_does_not_end_the_thread(executor: OneThread) -> None:
    for error in (OSError("on purpose"), SystemExit(3), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            executor.call(raising(error))
        assert raised.value is error
    threads = []
    executor.call(lambda: threads.append(threading.current_thread()))
    assert threads == [executor.thread]


def test_calls_are_made_one_after_the_other(executor: OneThread) -> None:
    counts: list[int] = []
    running: list[int] = []

    def count() -> None:
        running.append(1)
        counts.append(len(running))
        running.pop()

    callers = [threading.Thread(target=executor.call, args=(count,)) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(DEADLINE)
    assert counts == [1] * 20


def test_it_does_not_keep_the_interpreter_from_its_end(executor: OneThread) -> None:
    assert executor.thread.daemon
