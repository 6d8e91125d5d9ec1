"""The end of workers that do not get on, with the orders, signals and lines of the log that they cause."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from typing import Any

import pytest

from django_wspbus.children.progress import Progress
from django_wspbus.children.retiring.ending import TIME_FOR_LISTENERS, Ending
from django_wspbus.children.retiring.requests import IDLE_TIME, Requests
from django_wspbus.children.stacks import is_suspended
from django_wspbus.process.phases import LEAST
from django_wspbus.process.slots import InFlight
from django_wspbus.process.worker_orders import Retire
from django_wspbus.successor.state import RetireeState
from tests.servers.load import await_that

PID = 2**22 + 1
ORDERED = 1000.0
HANGS = InFlight(1, 0, 0, ORDERED - 90, ORDERED - 90, 0.0, "GET /hang/")
STUCK = Requests(in_flight=[HANGS], stuck=[HANGS], threads=2, connections=1)


class Child:
    """A child with one worker that retires. ``listens``: it gets orders."""

    alias = "shop"

    def __init__(self, pid: int = PID, *, listeners: float | None = ORDERED + 50) -> None:
        self.progress = Progress()
        self.retiring = {pid: RetireeState(pid, "timeout", ORDERED - 1, ORDERED, ORDERED + 40, listeners)}
        self.deadline: float | None = None
        self.dismissed_at = 0.0
        self.listens = True
        self.done: list[Any] = []
        self.log: list[str] = []
        self.ending = Ending(self, lambda message, level: self.log.append(message))  # type: ignore[arg-type]

    def order_worker(self, pid: int, order: Retire) -> bool:
        self.done.append(order)
        return self.listens

    def signal_worker(self, pid: int, number: int) -> None:
        self.done.append((pid, number))

    def look(self, requests: Requests, now: float, pending: frozenset[int] = frozenset()) -> None:
        (pid,) = self.retiring or (PID,)
        self.ending.look({pid: requests}, set(pending), now)


KILLED = (PID, signal.SIGKILL)


def test_a_worker_with_nothing_but_stuck_requests_runs_its_listeners_and_is_killed() -> None:
    child = Child()
    child.look(STUCK, ORDERED + 1, pending=frozenset([PID]))  # its stacks are being written
    assert child.done == []
    now = ORDERED + 2
    child.look(STUCK, now)
    assert child.done == [Retire(now, now + TIME_FOR_LISTENERS)]
    assert child.progress.hurried == {PID}
    assert child.log == [
        f"Worker {PID} of the server 'shop' is killed: only stuck requests are left: GET /hang/ (for 92.0 s)."
    ]
    child.look(STUCK, now + TIME_FOR_LISTENERS + LEAST - 0.01)
    assert len(child.done) == 1
    for _ in range(2):  # once, as it may take a moment to end
        child.look(STUCK, now + TIME_FOR_LISTENERS + LEAST)
    assert child.done[1:] == [KILLED]
    assert len(child.log) == 1


@pytest.mark.parametrize("reacts", [True, False])
def test_a_worker_that_hears_no_order_is_killed_at_once(reacts: bool) -> None:
    child = Child()
    child.listens = False
    child.look(Requests(STUCK.answered, [HANGS], [HANGS], 2, 0, 1, is_silent=not reacts), ORDERED + 1)
    assert child.done[-1] == KILLED
    assert len(child.done) == (2 if reacts else 1)


def test_a_worker_that_serves_or_has_other_requests_goes_on() -> None:
    child = Child()
    other = InFlight(1, 1, 1, ORDERED, ORDERED, 0.0, "GET /")
    child.look(Requests(in_flight=[HANGS, other], stuck=[HANGS], threads=2, connections=2), ORDERED + 1)
    child.retiring[PID].ordered = None
    child.look(STUCK, ORDERED + 1)
    child.retiring.clear()
    child.look(STUCK, ORDERED + 1)
    assert (child.done, child.log) == ([], [])


def test_of_a_child_that_drains_every_worker_is_looked_at() -> None:
    child = Child()
    child.retiring.clear()
    child.deadline, child.dismissed_at = ORDERED + 100, ORDERED
    child.look(STUCK, ORDERED + 1)
    assert [type(each) for each in child.done] == [Retire]


def test_a_worker_that_has_not_ended_in_time_is_killed() -> None:
    child = Child(listeners=ORDERED + 10)
    child.look(Requests(), ORDERED + 10 + LEAST)
    assert child.done == []
    child.look(Requests(), ORDERED + 10 + LEAST + 0.01)
    assert child.done == [KILLED]
    assert child.log == [f"Worker {PID} of the server 'shop' is killed: it has not ended in time."]


def test_a_worker_that_is_stopped_is_killed_once_it_would_have_ended() -> None:
    with subprocess.Popen(["sleep", "60"]) as program:
        try:
            os.kill(program.pid, signal.SIGSTOP)
            await_that(lambda: is_suspended(program.pid))
            child = Child(program.pid)
            child.look(Requests(), ORDERED + IDLE_TIME)
            assert child.done == []
            child.look(Requests(), ORDERED + IDLE_TIME + 0.01)
            assert child.done == [(program.pid, signal.SIGKILL)]
            assert child.log[0].endswith("is killed: it is stopped (SIGSTOP).")

            child = Child(program.pid)
            child.look(STUCK, ORDERED + 1)  # it would not hear the order
            assert child.done == [(program.pid, signal.SIGKILL)]
        finally:
            program.kill()


def test_requests_that_are_cut_off_are_logged_once_and_stuck_ones_not_again() -> None:
    child = Child()
    child.progress.cut_off[PID] = "GET /slow/"
    child.progress.stopped.add(PID)
    child.ending.log_cut_off()
    child.ending.log_cut_off()
    (line,) = child.log
    assert line.startswith(f"Worker {PID} of the server 'shop': requests cut off after ")
    assert line.endswith(" seconds (GRACEFUL_TIMEOUT): GET /slow/.")
    assert child.progress.stopped == set()

    child.progress.cut_off[PID] = "GET /hang/"
    child.progress.hurried.add(PID)
    child.ending.log_cut_off()
    assert len(child.log) == 1
    assert child.progress.cut_off == {}

    child.progress.cut_off[PID] = "GET /slow/"
    child.deadline = math.inf  # the child logs them at its end
    child.ending.log_cut_off()
    assert len(child.log) == 1
    assert child.progress.cut_off == {PID: "GET /slow/"}
