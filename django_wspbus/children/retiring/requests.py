"""The requests of the workers of a child, as their records show them at one moment."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

from ...process.record import Record
from ...process.slots import InFlight
from ..child import Child

SILENT = 3.0
"""Seconds without a turn of a worker's main loop after which the worker does not react."""

IDLE_TIME = 2.5
"""Seconds within which a worker that accepts no more closes the connections that are kept alive."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of one worker."""

    answered: int = 0
    in_flight: list[InFlight] = field(default_factory=list)
    stuck: list[InFlight] = field(default_factory=list)
    """Those without progress for REQUEST_TIMEOUT."""
    threads: int = 0
    """See `Record.threads`."""
    unrecorded: int = 0
    connections: int = -1
    """See `Record.connections`."""
    is_silent: bool = False
    """True if the main loop of the worker does not run."""

    @property
    def is_stuck(self) -> bool:
        return bool(self.stuck)

    @property
    def has_no_thread(self) -> bool:
        """True if stuck requests take every thread."""
        return 0 < self.threads <= len(self.stuck)

    def only_stuck_are_left(self, seconds: float) -> bool:
        """Return whether a worker has stuck requests and nothing else, seconds after its last accept."""
        if not self.stuck or len(self.stuck) < len(self.in_flight) or self.unrecorded:
            return False
        if self.connections < 0:
            return seconds > IDLE_TIME
        return self.connections <= len(self.stuck) or self.is_silent


def read_requests(record: Record, request_timeout: float | None, now: float) -> Requests:
    in_flight = list(record.slots.in_flight())
    timeout = math.inf if request_timeout is None else request_timeout
    return Requests(
        record.slots.answered,
        in_flight,
        [each for each in in_flight if now - each.progressed >= timeout],
        record.threads,
        record.unrecorded,
        record.connections,
        is_silent=bool(beat := record.beat) and now - beat > SILENT,
    )


def requests_of(child: Child, now: float) -> dict[int, Requests]:
    """Return the requests of each worker with a record: PID -> requests."""
    found = {}
    for pid in set(child.workers):
        record = child.records.get(pid)
        if record is not None:
            with contextlib.suppress(ValueError):  # it has been closed
                found[pid] = read_requests(record, child.progress.policy.request_timeout, now)
    return found
