"""The limits of the policy of a child, and the workers that exceed one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ...system.backoff import HEALTHY_LIFETIME, MOST, Backoff
from ..child import Child
from .memory import MemoryLimit
from .plan import Reason
from .requests import Requests

JITTER = 0.1
"""The part of a limit that is added at random, so that not all workers retire at once."""


@dataclass(frozen=True, slots=True)
class Jitter:
    """Random numbers of one worker."""

    requests: float
    memory: float
    age: float


class Limits:
    """Finds the reason for which a worker of a child retires.

    ``changed()`` is called, in any thread, when a reason may have come up.
    """

    def __init__(self, child: Child, log: Callable[[str, int], None], changed: Callable[[], None]) -> None:
        self._child = child
        self._log = log
        self._memory = MemoryLimit(changed, self._say_that_memory_is_short)
        self._jitters: dict[int, Jitter] = {}
        self._backoff = Backoff()
        self._noted = 0.0
        self._stuck: set[int] = set()
        self._waits_until = 0.0
        self._has_said = False
        self.is_in_vain = False
        """True once all threads of a successor get stuck at once, until a worker shows that they do not."""

    def _is_backing_off(self, now: float) -> bool:
        """Return whether stuck workers are not replaced now, because their successors get stuck, too."""
        return now < self._waits_until

    def reasons(self, requests: dict[int, Requests], now: float) -> dict[int, Reason]:
        """Return the reasons for workers to retire: PID -> reason."""
        ready_since = self._child.progress.ready_since
        self._memory.forget_others(requests)
        self._jitters = {pid: self._jitters.get(pid) or _draw() for pid in requests}
        self._stuck &= set(requests)
        if (limit := self._child.progress.policy.memory) is not None:
            ready = ready_since.keys() & requests.keys()
            self._memory.look({pid: self._memory_of(pid, limit) for pid in ready}, now)
        found = {}
        serving = {pid: each for pid, each in requests.items() if pid not in self._child.retiring}
        if any(self._is_proven(each, now - ready_since.get(pid, now)) for pid, each in serving.items()):
            self.is_in_vain = False
        for pid, each in requests.items():
            if pid in ready_since:
                reason = self._reason(pid, each, now - ready_since[pid], now)
                if reason is not None:
                    found[pid] = reason
        return found

    def _reason(self, pid: int, requests: Requests, age: float, now: float) -> Reason | None:
        policy, jitter = self._child.progress.policy, self._jitters[pid]
        if requests.is_stuck and policy.request_timeout is not None:
            self._note_stuck(pid, age, policy.request_timeout, now)
            is_early = not self._has_worked(age, policy.request_timeout)
            # A worker with a free thread serves: then a restart of the site would only do harm.
            if self._backoff.failures > 1 and is_early and requests.has_no_thread:
                self.is_in_vain = True
            if not self._is_backing_off(now):
                return Reason.TIMEOUT
        if policy.memory is not None and self._memory.is_exceeded(pid, age, now):
            return Reason.MEMORY
        if policy.requests is not None:
            more = policy.requests_jitter or JITTER * policy.requests
            if requests.answered >= policy.requests + round(jitter.requests * more):
                return Reason.REQUESTS
        if policy.age is not None and age >= policy.age * (1 + JITTER * jitter.age):
            return Reason.AGE
        return None

    def _memory_of(self, pid: int, limit: int) -> int:
        """Return the bytes that a worker may hold."""
        return int(limit * (1 + JITTER * self._jitters[pid].memory))

    def _is_proven(self, requests: Requests, age: float) -> bool:
        """Return whether a worker has served for long enough without running out of threads."""
        timeout = self._child.progress.policy.request_timeout
        return timeout is not None and self._has_worked(age, timeout) and not requests.has_no_thread

    @staticmethod
    def _has_worked(age: float, request_timeout: float) -> bool:
        return age > 2 * request_timeout + HEALTHY_LIFETIME

    def _note_stuck(self, pid: int, age: float, request_timeout: float, now: float) -> None:
        """Back off if a worker got stuck as soon as it served, and so did the one that it replaced."""
        if pid in self._stuck:
            return
        self._stuck.add(pid)
        if now - age <= self._noted:  # it served already when another one got stuck
            return
        worked = self._has_worked(age, request_timeout)
        wait = self._backoff.note(worked=worked)
        self._noted, self._waits_until = now, now + wait
        if worked:
            self._has_said = False
        elif wait and not self._has_said:
            self._has_said = True
            self._log(
                f"The workers of the server {self._child.alias!r} get stuck as soon as they serve. The site "
                f"replaces them at growing intervals of up to {MOST:g} seconds.",
                40,
            )

    def _say_that_memory_is_short(self, pid: int, age: float, seconds: float) -> None:
        size, limit = self._memory.sizes.get(pid, 0), self._child.progress.policy.memory or 0
        self._log(
            f"Worker {pid} of the server {self._child.alias!r} holds {in_megabytes(size)} of private memory "
            f'{age:.0f} seconds after its boot, and RECYCLE["MEMORY"] is {in_megabytes(limit)}. A successor '
            f"would need as much: no worker is replaced for its memory for {seconds:g} seconds. "
            "Raise the limit.",
            40,
        )

    def why(self, pid: int, reason: Reason, requests: Requests) -> str:
        """Return in words why a worker retires."""
        policy = self._child.progress.policy
        match reason:
            case Reason.TIMEOUT:
                return f"a request has made no progress for {policy.request_timeout:g} s"
            case Reason.MEMORY:
                return f"it holds {in_megabytes(self._memory.sizes.get(pid, 0))} of private memory"
            case Reason.REQUESTS:
                return f"it has answered {requests.answered:,} requests"
            case Reason.AGE:
                return f"it has served for {policy.age:g} seconds"
        return "the server has fewer workers from now on"


def _draw() -> Jitter:
    return Jitter(requests=random.random(), memory=random.random(), age=random.random())


def in_megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
