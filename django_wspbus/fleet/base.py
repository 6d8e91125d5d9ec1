"""The interface of an engine: the store and the messenger that all sites of a fleet share.

To support another engine, write a subclass of `Engine` in one file; `redis` is the smallest.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured

from ..conf.checks import check_option_names, check_seconds
from ..conf.findings import Problem

DEFAULT_LEASE = 15.0
"""Seconds after which a member, or a leader, that shows no sign of life counts as gone."""

SHORTEST_LEASE, LONGEST_LEASE = 1, 3600

LEADER = "leader"
"""The name of the lease of the fleet's leader."""

REMEMBERED = 600.0
"""Seconds for which a member that vanished without leaving stays in the list of members."""


class Unavailable(Exception):
    """The engine does not answer, or refuses to serve. The text says why."""


class Denied(Unavailable):
    """The engine does not admit this client: its name or password is wrong, or it lacks a permission."""


@dataclass(frozen=True, slots=True)
class MemberProcess:
    """A process of a member that takes part in the fleet."""

    pid: int
    roles: list[str]


@dataclass(frozen=True, slots=True)
class Member:
    """A site of the fleet, or a process that another program serves."""

    id: str
    """Its random identifier, a new one for each start: at most 32 letters and digits."""
    host: str
    pid: int
    version: str
    """The version of its code: the setting, or the path of its release."""
    state: str
    """The state of its bus."""
    directory: str = ""
    """The directory in which it was started: a site that is started there again takes its place."""
    processes: list[MemberProcess] = field(default_factory=list)
    leads: bool = False
    """True if one of its processes leads the fleet."""
    key: str = ""
    """The identifier of the key with which it signs."""
    seen: float = 0.0
    """The time of its last sign of life, of the engine's clock; seconds since the epoch."""

    @property
    def is_site(self) -> bool:
        """True for a site; False for a process that another program serves."""
        return any("site" in process.roles for process in self.processes)

    def is_forgotten(self, now: float) -> bool:
        """Return True if it vanished so long ago that the list of members need not name it any more."""
        return now - self.seen > REMEMBERED

    def as_json(self) -> str:
        """Return all but ``id`` and ``seen``, which an engine stores beside it."""
        values = dataclasses.asdict(self)
        del values["id"], values["seen"]
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_json(cls, id: str, seen: float, text: str | bytes) -> Member:  # noqa: A002
        values = _known(cls, json.loads(text))
        values["processes"] = [MemberProcess(**_known(MemberProcess, each)) for each in values["processes"]]
        return cls(**{**values, "id": id, "seen": seen})


@dataclass(frozen=True, slots=True)
class Lease:
    """A record that at most one holder may renew.

    ``holder``: "" once it has been released. ``token`` grows with each holder, ``beat`` with each renewal.
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

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Run:
        return cls(**_known(cls, json.loads(text)))


def _known(section: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are fields of a dataclass: a later version may have written more."""
    names = {each.name for each in dataclasses.fields(section)}
    return {name: value for name, value in values.items() if name in names}


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

    A method that needs the engine raises `Unavailable` if that does not answer within ``timeout`` seconds. It
    has closed the connection then, and the next call opens another. No connection is replaced in silence: an
    engine that has come back may have lost its last writes, which matters to a candidate for a lease.
    One thread at a time calls the methods, but for `listen`, which another thread calls meanwhile, and those
    for transactions, which any thread calls. ``name``: that of the fleet, which all keys and channels
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

    # Checks

    @classmethod
    def check_options(cls, path: str, options: Mapping[str, Any]) -> Iterable[Problem]:
        """Find what is wrong with OPTIONS, without a connection. ``path``: that of OPTIONS."""
        known = {name: each for name, each in inspect.signature(cls).parameters.items() if name != "name"}
        yield from check_option_names(path, options, known, cls.__name__)
        for name, parameter in known.items():
            if parameter.default is parameter.empty and name not in options:
                yield Problem("E012", f'{path}["{name}"]', f"got nothing, and {cls.__name__} needs it.")
        yield from check_seconds(path, options, "lease", SHORTEST_LEASE, LONGEST_LEASE)

    def check(self, path: str) -> Iterable[Problem]:
        """Find what is wrong with the engine, over the connection. ``path``: that of FLEET."""
        return ()

    # The connection

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
        """Send messages, of ASCII, in this order, each to one member by its identifier, or to all (None)."""

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
        """Return the members, with the time of the last sign of life of each.

        Those that vanished without leaving are among them for `REMEMBERED` seconds.
        """

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
        """Raise the beat of a lease; None if it has been released, or belongs to another.

        Only the token has to be as it was: a renewal whose answer was lost has raised the beat.
        """

    @abstractmethod
    def release(self, name: str, lease: Lease) -> bool:
        """Set the holder of a lease to ""; return False if it belongs to another, or to none."""

    # Jobs

    @abstractmethod
    def runs(self) -> list[Run]:
        """Return the last run of each job that the engine knows."""

    @abstractmethod
    def claim(self, run: Run) -> bool:
        """Record a run, or a skipped tick; return False if its tick is not later than the last one."""

    @abstractmethod
    def finish(self, run: Run) -> bool:
        """Record the outcome of a run; return False if a later tick has been claimed since."""

    # Transactions of the project's database

    def send_in_transaction(self, messages: Sequence[tuple[str | None, bytes]], using: str | None) -> None:
        """Send messages with the commit of the transaction under way in this thread; no `connect` is needed.

        ``using``: the alias of the database; None: that of the fleet. `TransactionManagementError` outside of
        a transaction, `ImproperlyConfigured` if the engine is not this database.
        """
        raise ImproperlyConfigured(
            f"A message of a transaction (atomic=True) needs PostgreSQL as the engine of the fleet, and not "
            f"{type(self).__name__}: with on_commit=True it is sent right after the commit."
        )

    def fence(self, token: int, using: str) -> AbstractContextManager[None]:
        """Run a transaction that keeps the lease of the leader from being taken; no `connect` is needed.

        `NotLeader` if the token is not that of the leader, `ImproperlyConfigured` if the engine is not the
        database with the alias ``using``.
        """
        raise ImproperlyConfigured(
            f"bus.leader.fence() needs PostgreSQL as the engine of the fleet, and not {type(self).__name__}: "
            f"store bus.leader.token with each effect, and refuse an effect with a smaller one."
        )
