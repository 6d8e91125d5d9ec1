"""What a site process leaves to its next program over a restart, in one environment variable."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

VARIABLE = "DJANGO_WSPBUS_INHERITED"
LAUNCHED = "DJANGO_WSPBUS_LAUNCHED"
"""What the launcher tells its child besides: see `plugins.relaunch.Launch`."""


@dataclass(slots=True)
class Inheritance:
    """Descriptors are those of the process itself, which stays the same one; it has a new program."""

    pid: int = field(default_factory=os.getpid)
    sockets: list[dict[str, Any]] = field(default_factory=list)
    """{"holder", "address", "descriptor", "inode"} of each listening socket."""
    children: list[dict[str, Any]] = field(default_factory=list)
    """What `servers.generation.Generation.hand_on` says of each child process."""
    signals: tuple[int, list[int]] | None = None
    """The end of a pipe that holds the numbers of the signals that came meanwhile; those that are blocked."""
    pidfile: str | None = None
    """The PID file, which stays where it is."""

    @property
    def addresses(self) -> set[str]:
        """The addresses that the site holds, as BIND has them."""
        return {each["address"] for each in self.sockets}

    @classmethod
    def take(cls) -> Inheritance | None:
        """Take what this process has left to itself, None if this is its first program."""
        told = os.environ.pop(VARIABLE, None)
        inheritance = cls(**json.loads(told)) if told else None
        if inheritance is None or inheritance.pid != os.getpid():  # it was somebody else's environment
            return None
        for descriptor in inheritance.descriptors():
            os.set_inheritable(descriptor, False)
        return inheritance

    def leave(self) -> None:
        """Leave it to the program that this process executes next, which must be at once."""
        for descriptor in self.descriptors():
            os.set_inheritable(descriptor, True)
        os.environ.update(self.as_environment())

    def as_environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    def descriptors(self) -> list[int]:
        found = [each["descriptor"] for each in self.sockets]
        for child in self.children:
            found += [child["pair"], *(link["descriptor"] for link in child["links"])]
        return found if self.signals is None else [*found, self.signals[0]]
