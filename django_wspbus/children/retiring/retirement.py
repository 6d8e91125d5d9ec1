"""The replacement of single workers of one child."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...process.phases import Phases
from ...process.switchboard import Switchboard
from ...process.worker_orders import Begin, Retire
from ...successor.state import RetireeState
from ..child import Child
from .ending import Ending
from .limits import Limits
from .plan import LifeStage, Plan, Reason, Worker, make_plan
from .requests import Requests, requests_of
from .stuck import StuckLog

if TYPE_CHECKING:
    from ...conf import Settings

LONGEST_INTERVAL, SHORTEST_INTERVAL = 1.0, 0.1
"""Seconds between two looks at the requests of a child."""

LOOKS = 5
"""Looks within REQUEST_TIMEOUT."""

INTERVAL_OF_END = 0.25
"""Seconds between two looks while a worker has to end."""


class Retirement:
    """Replaces the workers of one child: see `plan`.

    It works in the thread of the switchboard, and never waits. ``log(message, level)`` writes to the log.
    """

    def __init__(
        self, child: Child, switchboard: Switchboard, settings: Settings, log: Callable[[str, int], None]
    ) -> None:
        self._child = child
        self._switchboard = switchboard
        self._settings = settings
        self._log = log
        self._limits = Limits(child, log, self.look)
        self._stuck = StuckLog(child, switchboard, log)
        self._ending = Ending(child, log)
        self._requests: dict[int, Requests] = {}
        self._reasons: dict[int, Reason] = {}
        self._is_looking = False
        self._is_ticking = False

    def look(self) -> None:
        """Look at the workers soon, as something has changed. Any thread may call this."""
        if not self._is_looking:
            self._is_looking = True
            self._switchboard.call_later(0, self._look)

    def _look(self) -> None:
        self._is_looking = False
        if self._child.is_closed:
            return
        try:
            if self._child.deadline is None:
                self._scale()
                self._carry_out_plan(time.monotonic())
            self._ending.log_cut_off()
        finally:
            self._look_later()

    def _look_later(self) -> None:
        """Look at the requests after an interval, while there is a reason to."""
        policy, is_ending = self._child.progress.policy, self._child.deadline is not None
        if self._is_ticking or not (policy.is_active or is_ending or self._child.retiring):
            return
        self._is_ticking = True
        interval = LONGEST_INTERVAL
        if policy.request_timeout is not None:
            interval = max(min(interval, policy.request_timeout / LOOKS), SHORTEST_INTERVAL)
        if is_ending or self._child.retiring:
            interval = min(interval, INTERVAL_OF_END)
        self._switchboard.call_later(interval, self._tick)

    def _tick(self) -> None:
        """Look at the requests, and then at the workers."""
        self._is_ticking = False
        if self._child.is_closed:
            return
        try:
            self._look_at_requests(time.monotonic())
        finally:  # an error must not end the looks
            self._look()

    def _look_at_requests(self, now: float) -> None:
        self._requests = requests_of(self._child, now)
        self._stuck.forget_others(self._requests)
        for pid, each in self._requests.items():
            self._stuck.note(pid, each.stuck)
        self._reasons = self._limits.reasons(self._requests, now)
        self._ending.look(self._requests, self._stuck.pending, now)

    # The number of workers

    def _scale(self) -> None:
        """Pass on to the master that the site wants another number of workers."""
        child, progress = self._child, self._child.progress
        record = child.records.get(child.pid)
        if child.wanted is None or record is None or progress.expected in (None, child.wanted):
            return
        record.wanted = progress.expected = child.wanted
        child.wake_master()

    # The plan

    def _carry_out_plan(self, now: float) -> None:
        if self._child.progress.expected is None:
            return
        plan = make_plan(map(self._describe, set(self._child.workers)), self._child.progress.expected)
        if self._child.is_serving:
            self._replace(plan, now)
        for pid in plan.release:
            if self._child.order_worker(pid, Begin()):
                self._child.progress.begin(pid)
        if (trouble := self._find_trouble(now)) != self._child.trouble:
            self._child.trouble = trouble
            self._child.changed()

    def _describe(self, pid: int) -> Worker:
        child = self._child
        retiree, requests = child.retiring.get(pid), self._requests.get(pid)
        return Worker(
            pid,
            self._stage_of(pid),
            child.progress.ready_since.get(pid, 0.0),
            retires=retiree is not None,
            is_ordered=retiree is not None and retiree.ordered is not None,
            reason=self._reasons.get(pid) if child.is_serving else None,
            is_stuck=requests is not None and requests.is_stuck,
        )

    def _stage_of(self, pid: int) -> LifeStage:
        progress = self._child.progress
        if pid in progress.stopped:
            return LifeStage.STOPPING
        if pid in progress.ready_workers():
            return LifeStage.SERVING
        if pid in progress.standby:
            listens = pid in progress.listeners.values()
            return LifeStage.STANDBY if listens else LifeStage.FORKED
        if pid in progress.begun or not progress.policy.is_active:
            return LifeStage.BOOTING
        return LifeStage.FORKED

    def _replace(self, plan: Plan, now: float) -> None:
        for pid, reason in plan.retire.items():
            self._decide(pid, reason, now)
        for pid in plan.order:
            if pid in self._child.retiring:
                self._order(self._child.retiring[pid], now)
        if plan.retire:
            self._child.wake_master()

    def _decide(self, pid: int, reason: Reason, now: float) -> None:
        """Replace a worker from now on; the master counts one more, and forks another standby worker."""
        record = self._child.records.get(pid)
        if record is not None:
            record.retiring = 1
        elif reason is not Reason.SCALE:  # the master would not count one more
            return
        self._child.retiring[pid] = RetireeState(pid, reason.value, now)
        why = self._limits.why(pid, reason, self._requests.get(pid, Requests()))
        level = 30 if reason is Reason.TIMEOUT else 20
        self._log(f"Worker {pid} of the server {self._child.alias!r} retires: {why}.", level)

    def _order(self, retiree: RetireeState, now: float) -> None:
        """Order a worker to stop accepting, answer what it has, and exit."""
        phases = Phases.of_replaced(self._settings)
        retiree.ordered, retiree.requests, retiree.listeners = now, phases.requests, phases.workers
        if not self._child.order_worker(retiree.pid, Retire(phases.requests, phases.workers)):
            self._child.signal_worker(retiree.pid, signal.SIGTERM)

    def _find_trouble(self, now: float) -> str | None:
        """Return why a stuck worker cannot be replaced, if that is so."""
        child = self._child
        for each in child.retiring.values():
            is_stuck = each.reason == Reason.TIMEOUT.value and each.ordered is None
            if is_stuck and now - each.since > self._settings.ready_timeout:
                return f"worker {each.pid} is stuck, and its successor has not become ready"
        if self._limits.is_in_vain:
            return "every worker gets stuck as soon as it serves"
        return None
