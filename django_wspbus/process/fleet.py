"""The fleet, as any of its processes reaches it: `bus.broadcast` and `bus.ask`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..wspbus.messenger import BUILT_IN_CHANNELS

GAP = "fleet.gap"
"""The channel on which a process learns that it has missed messages: ``(sender, number)``."""

OF_THE_BUS = ("fleet.",)
"""Beginnings of the names of channels that only this package publishes on."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of one process to `bus.ask`."""

    host: str
    pid: int
    roles: list[str]
    results: list[Any] = field(default_factory=list)
    """What its listeners returned, in the order of their priorities."""
    error: str | None = None
    """Why there are no results: a listener failed, or the process did not answer."""
    missing: bool = False
    """True if it did not answer in time."""

    @property
    def result(self) -> Any:
        """What its only listener returned, or the first one; None if it has none."""
        return self.results[0] if self.results else None


class Fleet:
    """The fleet of this process. Any thread may call its methods."""

    largest = 2**20
    """The most bytes of a message: its channel and arguments as JSON."""

    def broadcast(self, channel: str, arguments: str) -> None:
        """Send a message to every process. ``arguments``: a JSON array."""
        raise NotImplementedError

    def ask(self, channel: str, arguments: str, timeout: float) -> list[Reply]:
        """Publish on a channel in every process, and return the reply of each."""
        raise NotImplementedError


def encode(channel: str, args: Sequence[Any], largest: int) -> str:
    """Return arguments as JSON.

    ValueError for a channel that cannot be broadcast on, and for too many bytes; TypeError for what JSON does
    not know.
    """
    if not isinstance(channel, str) or not channel:
        raise TypeError(f"A channel is a text, and not {channel!r}.")
    if channel in BUILT_IN_CHANNELS or channel.startswith(OF_THE_BUS):
        raise ValueError(
            f"The channel {channel!r} belongs to the bus of each process: broadcast on one of your own."
        )
    text = json.dumps(args, separators=(",", ":"), allow_nan=False)
    if (size := len(text) + len(json.dumps(channel))) > largest:
        raise ValueError(f"A message on {channel!r} has {size:,} bytes; {largest:,} are the most here.")
    return text
