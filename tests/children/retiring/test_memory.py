"""The limit of a worker's private memory: the workers that retire for it, and when the site waits."""

from __future__ import annotations

import os
import threading

import pytest

from django_wspbus.children.retiring.memory import FIRST_WAIT, FIRST_WAIT_FOR_GROWTH, YOUNG, MemoryLimit
from django_wspbus.system.memory import private_memory
from tests.processes import DEADLINE
from tests.servers.load import await_that


class Limit:
    """A limit whose measurements the test makes."""

    def __init__(self):
        self.said = []
        self.limit = MemoryLimit(lambda: None, lambda *args: self.said.append(args))

    def measure(self, pid, *, exceeds):
        if exceeds:
            self.limit.sizes[pid] = 10**9
        else:
            self.limit._measured.add(pid)


def test_a_worker_that_grows_retires_and_so_does_its_successor_a_moment_later():
    limit = Limit()
    now = 1000.0
    for pid in range(4):
        limit.measure(pid, exceeds=False)
        limit.measure(pid, exceeds=True)
        now += 10
        while not limit.limit.is_exceeded(pid, 10.0, now):
            now += FIRST_WAIT_FOR_GROWTH
    assert now < 1000 + 4 * 10 + FIRST_WAIT
    assert limit.said == []


def test_a_worker_that_exceeds_the_limit_from_the_beginning_stays_and_the_site_says_so():
    limit = Limit()
    limit.measure(1, exceeds=True)

    assert not limit.limit.is_exceeded(1, 0.5, 1000.0)
    assert limit.said == [(1, 0.5, FIRST_WAIT)]
    assert not limit.limit.is_exceeded(1, FIRST_WAIT - 1, 1000.0 + FIRST_WAIT - 1)
    assert limit.limit.is_exceeded(1, FIRST_WAIT + 1, 1000.0 + FIRST_WAIT + 1)

    limit.measure(2, exceeds=True)  # its successor is no smaller
    assert not limit.limit.is_exceeded(2, 0.5, 2000.0)
    assert limit.said[1:] == [(2, 0.5, 2 * FIRST_WAIT)]


def test_an_old_worker_that_exceeds_the_limit_ends_the_wait():
    limit = Limit()
    limit.measure(1, exceeds=True)
    assert not limit.limit.is_exceeded(1, 0.5, 1000.0)
    limit.measure(2, exceeds=True)
    assert limit.limit.is_exceeded(2, YOUNG + 1, 1000.0 + FIRST_WAIT + 1)
    limit.measure(3, exceeds=True)
    assert not limit.limit.is_exceeded(3, 0.5, 2000.0)
    assert limit.said[-1] == (3, 0.5, FIRST_WAIT)


def test_a_measurement_finds_the_processes_above_the_limit():
    measured = threading.Event()
    limit = MemoryLimit(measured.set, lambda *args: None)
    pid = os.getpid()

    limit.look({pid: 1}, 0.0)

    assert measured.wait(DEADLINE)
    assert 0 < limit.sizes[pid] <= 2 * (private_memory(pid) or 0)
    assert limit.is_exceeded(pid, YOUNG + 1, 1.0)

    limit.look({pid: 10**15}, 10.0)
    await_that(lambda: limit.sizes == {})
    assert not limit.is_exceeded(pid, YOUNG + 1, 11.0)


def test_a_measurement_that_cannot_start_is_tried_again(monkeypatch):
    limit = MemoryLimit(lambda: None, lambda *args: None)

    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            limit.look({os.getpid(): 1}, 0.0)
    limit.look({os.getpid(): 1}, 10.0)
    await_that(lambda: limit.sizes != {})
