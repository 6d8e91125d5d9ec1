"""Who leads: what a candidate does with the lease. Pure: the clock and the engine are the caller's.

Times are of one clock that no one sets and that also runs while the machine sleeps (CLOCK_BOOTTIME), in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import Lease

LEAST_INTERVAL = 0.05


@dataclass(frozen=True, slots=True)
class Timing:
    """The intervals that follow from a lease, in seconds."""

    lease: float

    @property
    def margin(self) -> float:
        """Seconds before its end at which a leader stops to lead: for the drift of clocks, and for what is under way."""
        return self.lease / 10

    @property
    def renewal(self) -> float:
        return self.lease / 3

    @property
    def look(self) -> float:
        """Seconds between two looks of a candidate."""
        return min(self.lease / 5, 1.0)


@dataclass(frozen=True, slots=True)
class Look:
    """Read the lease."""


@dataclass(frozen=True, slots=True)
class Take:
    """Take the lease that was seen."""

    seen: Lease | None


@dataclass(frozen=True, slots=True)
class Renew:
    lease: Lease


Action = Look | Take | Renew


class Candidacy:
    """The state of one candidate, which may lead."""

    def __init__(self, holder: str, timing: Timing) -> None:
        self.holder = holder
        self.timing = timing
        self.lease: Lease | None = None
        """The lease, while it is this candidate's."""
        self._valid_until = 0.0
        self._seen: Lease | None = None
        self._unchanged_since: float | None = None
        """The time at which the answer arrived that showed ``_seen`` for the first time."""
        self._next = 0.0

    def leads(self, now: float) -> bool:
        return self.lease is not None and now < self.deadline

    @property
    def deadline(self) -> float:
        """The time from which this process must not act as the leader."""
        return self._valid_until - self.timing.margin

    @property
    def end(self) -> float:
        """The time from which another may have taken the lease."""
        return self._valid_until

    def wake(self) -> None:
        """Look at the next opportunity: the lease has been released."""
        self._next = 0.0

    def due(self) -> float:
        """Return the time of the next action."""
        return self._next

    def next(self, now: float) -> Action:
        """Return what to ask the engine for, now that it is time."""
        if self.lease is not None:
            return Renew(self.lease)
        if self._unchanged_since is not None and self._may_take(now):
            return Take(self._seen)
        return Look()

    def _may_take(self, now: float) -> bool:
        is_released = self._seen is not None and self._seen.holder == ""
        assert self._unchanged_since is not None
        return is_released or now - self._unchanged_since >= self.timing.lease

    def note_seen(self, lease: Lease | None, asked: float, now: float) -> None:
        """Note the answer to `Look`, which was sent at ``asked``."""
        if self._unchanged_since is None or lease != self._seen:
            self._seen, self._unchanged_since = lease, now
        self._next = (
            now
            if self._may_take(now)
            else min(now + self.timing.look, self._unchanged_since + self.timing.lease)
        )

    def note_taken(self, lease: Lease | None, asked: float, now: float) -> None:
        """Note the answer to `Take` (None: it had changed)."""
        self._seen = self._unchanged_since = None
        if lease is None:
            self._next = now
            return
        self._own(lease, asked)

    def note_renewed(self, lease: Lease | None, asked: float, now: float) -> None:
        """Note the answer to `Renew` (None: it is lost)."""
        if lease is None:
            self.lose()
            self._next = now
            return
        self._own(lease, asked)

    def _own(self, lease: Lease, asked: float) -> None:
        self.lease = lease
        self._valid_until = asked + self.timing.lease
        self._next = asked + self.timing.renewal

    def note_failed(self, now: float) -> None:
        """Note that the engine did not answer: it is unknown what it has done."""
        # It may come back without its last writes, so that a record looks unchanged which was not.
        self._seen = self._unchanged_since = None
        self._next = now + min(self.timing.look, self.timing.renewal)

    def lose(self) -> None:
        """Lead no longer, as the deadline has passed, or another holds the lease."""
        self.lease = None
        self._seen = self._unchanged_since = None
