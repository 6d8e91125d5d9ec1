"""The progress of a child, as its processes have reported it."""

from __future__ import annotations

import time
from collections import deque

from ..process.messages import Link
from ..process.reports import (
    Answered,
    Died,
    Expected,
    Failed,
    FilesReopened,
    Hello,
    Ready,
    Replied,
    Report,
    RetirementPolicy,
    Standby,
    Stopped,
)
from ..successor.state import ChildState

MOST_REPLIES = 1000
"""Answers to publications that are kept; late ones are never read."""


class Progress:
    """The workers of a child and their state. The descriptor of its link identifies a worker."""

    def __init__(self) -> None:
        self.workers: dict[int, int] = {}
        """descriptor -> PID"""
        self.listeners: dict[int, int] = {}
        """descriptor -> PID of the links on which workers take orders: see `RemoteSite.listen`."""
        self.ready: set[int] = set()
        """Descriptors of the workers that are ready."""
        self.expected: int | None = None
        """The number of workers that serve, once the master has reported it."""
        self.policy = RetirementPolicy()
        self.leads: bool | None = None
        """True if its code has work for a leader; None: it is not known."""
        self.version = ""
        """The version of its code, for the list of members; "" until it is known."""
        self.standby: set[int] = set()
        """PIDs of the workers that wait to begin."""
        self.begun: set[int] = set()
        """PIDs of those that stood by, and have the order to begin."""
        self.ready_since: dict[int, float] = {}
        """PID -> the time of `time.monotonic` at which a worker was ready."""
        self.has_answered = False
        """True once a worker has answered a request."""
        self.failure: str | None = None
        """The reason why the child cannot serve, if it cannot."""
        self.status = 1
        """The status with which the site exits if this failure ends its start."""
        self.failed_workers: list[str] = []
        """The reasons why new workers did not become ready, while the child serves."""
        self.failed_stops: list[str] = []
        """The stop listeners that failed, or were cut off."""
        self.stopped: set[int] = set()
        """PIDs of workers that have reported the end of their stop listeners, and the requests cut off."""
        self.replies: deque[Replied] = deque(maxlen=MOST_REPLIES)
        """The latest answers of workers to publications."""
        self.cut_off: dict[int, str] = {}
        """PID -> the requests that a worker has not answered before it ended."""
        self.hurried: set[int] = set()
        """PIDs of the workers that had to end at once, because only stuck requests were left."""
        self.reopened: dict[int, FilesReopened] = {}
        """The latest report of log files by each process: PID -> report."""

    @property
    def is_ready(self) -> bool:
        return self.expected is not None and len(self.ready) >= self.expected

    @property
    def stage(self) -> str:
        """The stage of the boot, in words."""
        if self.expected is None:
            return "its application was still loading"
        return f"{len(self.ready)} of {self.expected} workers were ready"

    def note(self, link: Link, report: Report, *, is_serving: bool) -> None:
        """Record a report that came over a link."""
        match report:
            case Hello("worker", pid):
                self.workers[link.fileno()] = pid
                self.stopped.discard(pid)  # of an earlier process
            case Hello("listener", pid):
                self.listeners[link.fileno()] = pid
            case Expected(workers, policy, leads, version):
                self.expected = workers
                self.policy = policy
                self.leads = leads
                self.version = version
            case Standby(pid):
                self.standby.add(pid)
            case Ready(pid):
                self.ready.add(link.fileno())
                self.ready_since.setdefault(pid, time.monotonic())
            case Answered():
                self.has_answered = True
            case Failed(reason, _) if is_serving:
                self.failed_workers.append(reason)
            case Failed(reason, status):
                self.note_failure(reason, status)
            case Died(pid) if not is_serving:
                self.note_failure(f"worker {pid} died before it was ready.")
            case FilesReopened(pid, _, _):
                self.reopened[pid] = report
            case Replied():
                self.replies.append(report)
            case Stopped(pid, failures, cut_off):
                self.ready.discard(link.fileno())
                self.stopped.add(pid)
                self.failed_stops += failures
                if cut_off:
                    self.cut_off[pid] = cut_off

    def begin(self, pid: int) -> None:
        """Record that a standby worker has the order to begin."""
        self.standby.discard(pid)
        self.begun.add(pid)

    def stands_by(self, pid: int) -> bool:
        """Return whether a worker has not begun yet; it may not have reported either that it stands by."""
        return self.policy.is_active and pid not in self.begun | self.stopped | self.ready_workers()

    def ready_workers(self) -> set[int]:
        """Return the PIDs of the workers that are ready, or serve."""
        return {pid for descriptor, pid in list(self.workers.items()) if descriptor in self.ready}

    def note_failure(self, reason: str, status: int = 1) -> None:
        """Record why the child cannot serve; only the first reason counts."""
        if self.failure is None:
            self.failure, self.status = reason, status

    def note_end(self, link: Link, *, exits: bool) -> None:
        """Record that the process at a link has ended; ``exits``: it has the order to exit."""
        descriptor = link.fileno()
        self.listeners.pop(descriptor, None)
        worker = self.workers.pop(descriptor, None)
        has_other_link = worker in self.workers.values()
        if worker is not None and not has_other_link:
            self.standby.discard(worker)
            self.begun.discard(worker)
            self.ready_since.pop(worker, None)
        if descriptor in self.ready and exits and not has_other_link:
            self.failed_stops.append(f"worker {worker} ended before its stop listeners had run.")
        self.ready.discard(descriptor)

    def forget(self, pid: int) -> None:
        """Forget a worker that has ended, but not the requests that it has cut off."""
        if pid not in self.cut_off:
            self.hurried.discard(pid)
            if pid not in self.workers.values():
                self.stopped.discard(pid)

    def adopt(self, state: ChildState) -> None:
        """Take over the state that the program before has handed over."""
        self.expected = state.expected
        self.leads = state.leads
        self.version = state.version
        self.has_answered = state.has_answered
        self.policy = RetirementPolicy(**state.policy)
        self.standby = set(state.standby)
        self.begun = set(state.begun)
        self.stopped = set(state.stopped)
        self.failed_stops = list(state.failed_stops)
        self.cut_off = {int(pid): names for pid, names in state.cut_off.items()}
        self.hurried = set(state.hurried)
        self.ready_since = {int(pid): since for pid, since in state.ready_since.items()}
        for link in state.links:
            if link.worker is not None:
                self.workers[link.descriptor] = link.worker
            if link.listener is not None:
                self.listeners[link.descriptor] = link.listener
            if link.is_ready:
                self.ready.add(link.descriptor)
