"""What a site process hands over to its next program when it restarts."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from .handover import descriptor_of, hand_over, take_over

VARIABLE = "DJANGO_WSPBUS_INHERITED"
LAUNCHED = "DJANGO_WSPBUS_LAUNCHED"
"""What the launcher hands over to its child besides: see `plugins.relaunch.Launch`."""


@dataclass(slots=True)
class Inheritance:
    """The sockets and children of a site. Descriptors keep their numbers, as the process stays the same."""

    sockets: list[dict[str, Any]] = field(default_factory=list)
    """{"holder", "address", "descriptor", "inode"} of each listening socket."""
    children: list[dict[str, Any]] = field(default_factory=list)
    """What `servers.generation.Generation.hand_on` says of each child process."""
    signals: tuple[int, list[int]] | None = None
    """The end of a pipe that holds the numbers of the signals that came meanwhile; those that are blocked."""
    pidfile: str | None = None
    """The PID file, which stays where it is."""
    lock: int | None = None
    """The open PID file, by which this process has it locked."""

    @property
    def addresses(self) -> set[str]:
        """The addresses that the site holds, as BIND has them."""
        return {each["address"] for each in self.sockets}

    @classmethod
    def take(cls) -> Inheritance | None:
        """Take what this process has handed over to itself, None if this is its first program.

        `handover.UnknownVersion` if that was a program of another version.
        """
        values = take_over(VARIABLE)
        if values is None:
            return None
        inheritance = cls(**values)
        for descriptor in inheritance.descriptors():
            os.set_inheritable(descriptor, False)
        return inheritance

    def leave(self) -> dict[str, str]:
        """Return the environment by which the program finds it that this process executes next, at once."""
        environment = self.as_environment()
        for descriptor in (*self.descriptors(), descriptor_of(VARIABLE, environment)):
            os.set_inheritable(descriptor, True)
        return environment

    def as_environment(self) -> dict[str, str]:
        """Return the environment by which this very program finds it."""
        return hand_over(VARIABLE, asdict(self))

    def descriptors(self) -> list[int]:
        """Return the descriptors that the next program needs, without that of the values themselves."""
        found = [each["descriptor"] for each in self.sockets]
        for child in self.children:
            found += [child["pair"], *(link["descriptor"] for link in child["links"])]
        found += [] if self.lock is None else [self.lock]
        return found if self.signals is None else [*found, self.signals[0]]
