"""The interface of an engine: the store and the messenger that all sites of a fleet share.

To support another engine, write a subclass of `Engine` in one file; `redis` is the smallest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

DEFAULT_LEASE = 15.0
"""Seconds after which a member, or a leader, that shows no sign of life counts as gone."""


class Unavailable(Exception):
    """The engine does not answer, or refuses to serve. The text says why."""


@dataclass(frozen=True, slots=True)
class MemberProcess:
    """A process of a member that takes part in the fleet."""

    pid: int
    roles: list[str]


@dataclass(frozen=True, slots=True)
class Member:
    """A site of the fleet, or a process that another program serves."""

    id: str
    """Its random identifier, a new one for each start."""
    host: str
    pid: int
    version: str
    """The version of its code: the setting, or the path of its release."""
    state: str
    """The state of its bus."""
    processes: list[MemberProcess] = field(default_factory=list)
    leads: bool = False
    """True if one of its processes leads the fleet."""
    key: str = ""
    """The identifier of the key with which it signs."""
    seen: float = 0.0
    """The time of its last sign of life, of the engine's clock; seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A record that at most one holder may renew.

    ``holder``: "" once it has been released. ``token`` grows with each holder, and ``beat`` with each renewal.
    """

    holder: str
    token: int
    beat: int


@dataclass(frozen=True, slots=True)
class Run:
    """A job: its last tick, and the run of it. Times are those of the engine, in seconds since the epoch."""

    job: str
    tick: float
    """The last tick that was claimed, or skipped."""
    host: str = ""
    pid: int = 0
    member: str = ""
    """The identifier of the member whose process claimed it."""
    began: float | None = None
    ended: float | None = None
    outcome: str = ""
    """"running", "ok", "failed", "skipped" or "lost"; "" if it has never run."""
    error: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    """The number of runs by outcome."""


class Listener(ABC):
    """A connection over which messages arrive."""

    @abstractmethod
    def receive(self, timeout: float) -> list[bytes]:
        """Return the messages that have arrived, or wait for one; [] at the timeout."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. A `receive` under way in another thread ends."""


class Engine(ABC):
    """One connection for commands, and a way to open another that listens.

    A method that needs the engine raises `Unavailable` if that does not answer within ``timeout`` seconds.
    The methods are called by one thread at a time. ``name``: that of the fleet, which all keys and channels
    contain.
    """

    largest: ClassVar[int]
    """The most bytes of a message."""

    def __init__(self, name: str, lease: float = DEFAULT_LEASE) -> None:
        self.name = name
        self.lease = lease

    @property
    def timeout(self) -> float:
        """Seconds for one call."""
        return min(self.lease / 3, 5.0)

    @classmethod
    def check_options(cls, path: str, options: dict[str, Any]) -> Iterable[Any]:
        """Find what is wrong with OPTIONS, without a connection."""
        return []

    def check(self) -> Iterable[Any]:
        """Find what is wrong with the engine, over the connection."""
        return []

    @abstractmethod
    def connect(self) -> None:
        """Connect, unless that is done."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; a later `connect` opens another."""

    @abstractmethod
    def time(self) -> float:
        """Return the time of the engine, in seconds since the epoch."""

    # Messages

    @abstractmethod
    def send(self, messages: Sequence[tuple[str | None, bytes]]) -> None:
        """Send messages in this order, each to one member by its identifier, or to all (None)."""

    @abstractmethod
    def listen(self, member: str) -> Listener:
        """Open a connection that gets the messages to all, and those to one member."""

    # Members

    @abstractmethod
    def beat(self, member: Member) -> float:
        """Record that a member lives; return the time of the engine."""

    @abstractmethod
    def leave(self, member: str) -> None:
        """Remove a member."""

    @abstractmethod
    def members(self) -> list[Member]:
        """Return the members, with the time of the last sign of life of each."""

    # Leases

    @abstractmethod
    def read(self, name: str) -> Lease | None:
        """Return a lease; None if there is no record of it."""

    @abstractmethod
    def take(self, name: str, seen: Lease | None, holder: str) -> Lease | None:
        """Take a lease that is still as it was seen; return it as it is now, or None if it has changed.

        The new token is the larger of the last one plus one and the time of the engine in microseconds.
        """

    @abstractmethod
    def renew(self, name: str, lease: Lease) -> Lease | None:
        """Raise the beat of a lease; None if it has changed since, and so belongs to another."""

    @abstractmethod
    def release(self, name: str, lease: Lease) -> bool:
        """Set the holder of a lease to ""; return False if it has changed since."""

    # Jobs

    @abstractmethod
    def runs(self) -> list[Run]:
        """Return the last run of each job that the engine knows."""

    @abstractmethod
    def claim(self, run: Run) -> bool:
        """Record a run, or a skipped tick, if its tick is later than the last one; return whether it was."""

    @abstractmethod
    def finish(self, run: Run) -> bool:
        """Record the outcome of a run; return False if a later tick has been claimed since."""
