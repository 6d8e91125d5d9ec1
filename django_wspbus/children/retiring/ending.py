"""The end of workers that have the order to exit, if requests or the process itself hold it up."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable

from ...process.phases import LEAST
from ...process.slots import InFlight
from ...process.worker_orders import Retire
from ...system.processes import is_suspended
from ..child import Child
from .requests import IDLE_TIME, Requests

TIME_FOR_LISTENERS = 1.0
"""Seconds for the stop listeners of a worker with nothing but stuck requests."""


class Ending:
    """Ends the workers of a child that finish, but do not get on: those that retire, or all if it drains."""

    def __init__(self, child: Child, log: Callable[[str, int], None]) -> None:
        self._child = child
        self._log = log
        self._kill_at: dict[int, float] = {}

    def look(self, requests: dict[int, Requests], pending: set[int], now: float) -> None:
        """End the workers that have only stuck requests; not those whose stacks are ``pending``."""
        self._kill_at = {pid: moment for pid, moment in self._kill_at.items() if pid in requests}
        for pid, each in requests.items():
            if (since := self._finishes_since(pid)) is not None and pid not in pending:
                self._look_at(pid, each, now, now - since)

    def _finishes_since(self, pid: int) -> float | None:
        """Return the time from which on a worker finishes what it has; None if it serves."""
        if self._child.deadline is not None:
            return self._child.dismissed_at
        retiree = self._child.retiring.get(pid)
        return None if retiree is None else retiree.ordered

    def _look_at(self, pid: int, requests: Requests, now: float, seconds: float) -> None:
        retiree = self._child.retiring.get(pid)
        if pid in self._kill_at:
            if now >= self._kill_at[pid]:
                self._kill(pid)
        elif requests.only_stuck_are_left(seconds):
            self._hurry(pid, requests, now)
        elif not requests.in_flight and seconds > IDLE_TIME and is_suspended(pid):
            self._say(pid, "it is stopped (SIGSTOP)")
            self._kill(pid)
        elif retiree is not None and retiree.listeners and now > retiree.listeners + LEAST:
            self._say(pid, "it has not ended in time")
            self._kill(pid)

    def _hurry(self, pid: int, requests: Requests, now: float) -> None:
        """Kill a worker once it has run its stop listeners; at once if it does not react."""
        self._say(pid, f"only stuck requests are left: {_names(requests.stuck, now)}")
        self._child.progress.hurried.add(pid)
        listeners = now + TIME_FOR_LISTENERS
        reacts = not requests.is_silent and not is_suspended(pid)
        if reacts and self._child.order_worker(pid, Retire(now, listeners)):
            self._kill_at[pid] = listeners + LEAST
        else:
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        self._kill_at[pid] = math.inf
        self._child.signal_worker(pid, signal.SIGKILL)

    def _say(self, pid: int, why: str) -> None:
        self._log(f"{self._name(pid)} is killed: {why}.", 40)

    def log_cut_off(self) -> None:
        """Log the requests that retired workers have cut off; a child that drains logs them at its end."""
        child = self._child
        for pid in list(child.progress.cut_off) if child.deadline is None else ():
            names, retiree = child.progress.cut_off.pop(pid), child.retiring.get(pid)
            is_hurried = pid in child.progress.hurried
            child.progress.forget(pid)
            if not is_hurried and retiree is not None and retiree.ordered is not None:
                seconds = time.monotonic() - retiree.ordered
                after = f"{seconds:.3g} seconds (GRACEFUL_TIMEOUT)"
                self._log(f"{self._name(pid)}: requests cut off after {after}: {names}.", 40)

    def _name(self, pid: int) -> str:
        return f"Worker {pid} of the server {self._child.alias!r}"


def _names(requests: list[InFlight], now: float) -> str:
    return ", ".join(f"{each.name} (for {now - each.started:.1f} s)" for each in requests)
