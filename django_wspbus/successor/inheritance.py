"""The state that a site process hands over to its next program when it restarts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from .invocation import INHERITED
from .values import descriptor_of, hand_over, take_over


@dataclass(frozen=True, slots=True)
class HeldSocket:
    """A listening socket that one program of a site hands over to another."""

    holder: str
    """The alias of the server that serves on it, or the path of the setting that wants it."""
    address: str
    """Its address, as BIND has it."""
    inode: tuple[int, int] | None
    """Device and inode of the file of a Unix socket."""
    descriptor: int
    """Its number in the process that has described it."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the socket that `dataclasses.asdict` has described, also after a way through JSON."""
        return cls(**{**values, "inode": values["inode"] and tuple(values["inode"])})

    @classmethod
    def received(cls, message: Iterable[Mapping[str, Any]], descriptors: Sequence[int]) -> list[Self] | None:
        """Return the sockets of a message that came with their descriptors.

        None if not all descriptors came, as no number was free; the others are closed then.
        """
        described = list(message)
        if len(described) != len(descriptors):
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        pairs = zip(described, descriptors, strict=True)
        return [cls.of({**each, "descriptor": descriptor}) for each, descriptor in pairs]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a site holds already when its next program starts, and so need not be free."""

    addresses: list[str]
    """Of its sockets, as BIND has them."""
    pidfile: str | None


@dataclass(slots=True)
class LinkState:
    """A link to a process of a child. ``received`` and ``unsent`` are bytes of messages, in base64."""

    descriptor: int
    name: str
    received: str
    unsent: str
    worker: int | None
    """The PID of the worker at its other end, None if another process is there."""
    is_ready: bool


@dataclass(slots=True)
class ChildState:
    """A child process and the site's links to its processes."""

    alias: str
    pid: int
    pair: int
    """The descriptor over which its processes hand in links."""
    links: list[LinkState]
    expected: int | None
    """How many workers it has, once it has said so."""
    is_serving: bool
    has_answered: bool
    left: float | None
    """Seconds that it has left to drain, None if it serves."""
    allowed: float
    """Seconds that it had for that."""

    @property
    def descriptors(self) -> list[int]:
        return [self.pair, *(link.descriptor for link in self.links)]


@dataclass(slots=True)
class Inheritance:
    """The sockets and children of a site. Descriptors keep their numbers, as the process stays the same."""

    sockets: list[HeldSocket] = field(default_factory=list)
    children: list[ChildState] = field(default_factory=list)
    signals: tuple[int, list[int]] | None = None
    """The end of a pipe that holds the numbers of the signals that came meanwhile; those that are blocked."""
    pidfile: str | None = None
    """The PID file, which stays where it is."""
    lock: int | None = None
    """The open PID file, by which this process has it locked."""
    restart_began: float | None = None
    """When the restart began, as `time.monotonic`."""

    @property
    def holdings(self) -> Holdings:
        return Holdings(sorted(each.address for each in self.sockets), self.pidfile)

    @classmethod
    def take(cls) -> Inheritance | None:
        """Take what this process has handed over to itself, None if this is its first program.

        `successor.values.UnknownVersion` if that was a program of another version.
        """
        values = take_over(INHERITED)
        if values is None:
            return None
        sockets = [HeldSocket.of(each) for each in values["sockets"]]
        children = [
            ChildState(**{**child, "links": [LinkState(**link) for link in child["links"]]})
            for child in values["children"]
        ]
        inheritance = cls(**{**values, "sockets": sockets, "children": children})
        for descriptor in inheritance.descriptors():
            os.set_inheritable(descriptor, False)
        return inheritance

    def leave(self) -> dict[str, str]:
        """Return the environment by which the program finds it that this process executes next, at once."""
        environment = self.as_environment()
        for descriptor in (*self.descriptors(), descriptor_of(INHERITED, environment)):
            os.set_inheritable(descriptor, True)
        return environment

    def as_environment(self) -> dict[str, str]:
        """Return the environment by which this very program finds it."""
        return hand_over(INHERITED, asdict(self))

    def descriptors(self) -> list[int]:
        """Return the descriptors that the next program needs, without that of the values themselves."""
        found = [each.descriptor for each in self.sockets]
        for child in self.children:
            found += child.descriptors
        found += [] if self.lock is None else [self.lock]
        return found if self.signals is None else [*found, self.signals[0]]
