"""The algorithm of the lease, for one candidate. The clock and the engine are the caller's.

Times are seconds of a clock that is never set, and that also runs while the machine sleeps (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

from .base import Lease

LONGEST_LOOK = 0.8
"""Seconds between two looks of a candidate: it leads less than a second after the lease is released."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The intervals that follow from the length of a lease, in seconds."""

    lease: float

    @property
    def margin(self) -> float:
        """The time before the end of the lease at which a leader ceases to lead.

        Clocks may drift by that much, and what the leader has begun may end.
        """
        return self.lease / 10

    @property
    def renewal(self) -> float:
        return self.lease / 3

    @property
    def look(self) -> float:
        """The time between two looks of a candidate."""
        return min(self.lease / 5, LONGEST_LOOK)


@dataclass(frozen=True, slots=True)
class Term:
    """The time for which a process leads. A renewal makes another one, with the same token."""

    lease: Lease
    deadline: float
    """The time from which the process does not lead any more."""
    end: float
    """The time from which another process may have taken the lease."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read the lease."""


@dataclass(frozen=True, slots=True)
class Take:
    """Take the lease, if it is still as it was seen."""

    seen: Lease | None


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew the lease."""

    lease: Lease


Action = Look | Take | Renew


class Candidacy:
    """A candidate, and the leader while it has a ``term``.

    It takes a lease that it has seen unchanged for a whole lease, or one that its holder has released. After
    a failure of the engine, it takes a released one after a whole lease as well.
    """

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.term: Term | None = None
        self._seen: Lease | None = None
        self._unchanged_since: float | None = None
        """The time of the first answer that showed ``_seen``; None before any."""
        self._is_refused = False
        """True from a take in vain to the next answer that shows the lease."""
        self._has_failed = False
        """True from a failure of the engine to its next answer."""
        self._doubts_until = -math.inf
        """The time until which a released lease may be an old record, which lacks the next leader."""
        self.due = 0.0
        """The time of the next action."""

    def leads(self, now: float) -> bool:
        # Any thread asks this, so the term is one object.
        return (term := self.term) is not None and now < term.deadline

    def next(self, now: float) -> Action:
        """Return the next action; its answer, or its failure, is to be noted."""
        if self.term is not None:
            return Renew(self.term.lease)
        if self._may_take(now) and not self._is_refused:
            return Take(self._seen)
        return Look()

    def _may_take(self, now: float) -> bool:
        if self._unchanged_since is None:
            return False
        is_released = self._seen is not None and self._seen.holder == ""
        if is_released and now >= self._doubts_until:
            return True
        return now - self._unchanged_since >= self.timing.lease

    def note_seen(self, lease: Lease | None, now: float) -> None:
        """Note the answer to `Look`."""
        self._is_refused = False
        self._note_answer(now)
        if self._unchanged_since is None or lease != self._seen:
            self._seen, self._unchanged_since = lease, now
        if self._may_take(now):
            self.due = now
        else:
            self.due = min(now + self.timing.look, self._unchanged_since + self.timing.lease)

    def note_held(self, lease: Lease | None, asked: float, now: float) -> None:
        """Note the answer to `Take` or `Renew`, which was sent at ``asked``; None: in vain."""
        self._note_answer(now)
        if lease is None:
            self._note_not_held(now)
            return
        self._forget()
        end = asked + self.timing.lease
        self.term = Term(lease, end - self.timing.margin, end)
        self.due = asked + self.timing.renewal

    def _note_not_held(self, now: float) -> None:
        if self.term is not None:
            self.lose()
            self.due = now
        else:
            # A fence may hold the record: if it has not changed, the time for which it was seen still counts.
            self._is_refused = True
            self.due = now + self.timing.look

    def note_failed(self, now: float) -> None:
        """Note that the engine has not answered, so that it is unknown what it has done."""
        # It may come back without its last writes: a record that looks unchanged may have changed meanwhile.
        self._forget()
        self._has_failed = True
        self.due = now + self.timing.look

    def lose(self) -> None:
        """End the term: its deadline has passed, or another process has the lease."""
        self.term = None
        self._forget()

    def wake(self) -> None:
        """Look at the next opportunity: the lease may have been released."""
        if self.term is None:
            self.due = 0.0

    def _note_answer(self, now: float) -> None:
        if self._has_failed:
            self._has_failed = False
            self._doubts_until = now + self.timing.lease

    def _forget(self) -> None:
        self._seen = self._unchanged_since = None
        self._is_refused = False


def name_of_holder(host: str, pid: int) -> str:
    """Return the name under which a process holds the lease: another one for each process there ever is."""
    return f"{host}:{pid}:{secrets.token_hex(4)}"


def pid_of(holder: str) -> int:
    """Return the PID in the name of a holder."""
    return int(holder.split(":")[-2])
