"""The fleet, as any of its processes reaches it: `bus.broadcast` and `bus.ask`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..conf.signals import SITE_ACTIONS
from ..wspbus.messenger import BUILT_IN_CHANNELS

GAP = "fleet.gap"
"""The channel on which a process learns that it has missed messages: ``(sender, number)``."""

RESERVED = frozenset({*BUILT_IN_CHANNELS, *SITE_ACTIONS, "abort", "before_restart", "execv", "autoreload"})
"""Channels on which a process acts: a message of another process must not reach them."""

RESERVED_BEGINNINGS = ("fleet.", "autoreload.")
"""Beginnings of the names of such channels."""

LARGEST = 2**20
"""The most bytes of a message within a site: its channel and arguments as JSON."""

LONGEST_TIMEOUT = 60.0
"""Seconds for the answers to `ask`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of one process to `bus.ask`."""

    host: str
    pid: int
    roles: list[str]
    results: list[Any] = field(default_factory=list)
    """The results of its listeners, in the order of their priorities."""
    error: str | None = None
    """The reason why there are no results: a listener failed, they are too large, or no answer came."""
    missing: bool = False
    """True if it did not answer in time."""

    @property
    def result(self) -> Any:
        """The result of its only listener, or of the first one; None if it has none."""
        return self.results[0] if self.results else None


class Fleet(ABC):
    """The fleet of this process. Any thread may call its methods."""

    largest: int = LARGEST
    """The most bytes of a message: its channel and arguments as JSON."""

    @abstractmethod
    def broadcast(self, channel: str, args: list[Any]) -> None:
        """Send a message to every process, without waiting. The arguments are those of `checked`."""

    @property
    def has_engine(self) -> bool:
        """True if the project has FLEET, and so an engine that may send with a commit."""
        return False

    def broadcast_in_transaction(self, channel: str, args: list[Any], using: str | None) -> None:
        """Send a message with the commit of the transaction under way: right after it, without an engine."""
        from django.db import transaction  # a bus without Django has no transactions

        if not transaction.get_connection(using).in_atomic_block:
            raise transaction.TransactionManagementError(
                "A message of a transaction (atomic=True) needs transaction.atomic()."
            )
        transaction.on_commit(partial(self.broadcast, channel, args), using=using)

    @abstractmethod
    def ask(self, channel: str, args: list[Any], timeout: float) -> list[Reply]:
        """Publish on a channel in every process, and return the reply of each."""


def is_reserved(channel: str) -> bool:
    """Return whether a channel is not for messages of other processes."""
    return channel in RESERVED or channel.startswith(RESERVED_BEGINNINGS)


def checked(channel: str, args: Sequence[Any], largest: int) -> list[Any]:
    """Return arguments as they arrive: as JSON has them.

    ValueError for a channel that belongs to the bus, and for too many bytes; TypeError for values that JSON
    does not know.
    """
    if not isinstance(channel, str) or not channel:
        raise TypeError(f"A channel is a text, and not {channel!r}.")
    if is_reserved(channel):
        raise ValueError(
            f"The channel {channel!r} belongs to the bus of each process: broadcast on one of your own."
        )
    text = json.dumps(args, separators=(",", ":"), allow_nan=False)
    if (size := len(text) + len(json.dumps(channel))) > largest:
        raise ValueError(f"A message on {channel!r} has {size:,} bytes; {largest:,} are the most.")
    result: list[Any] = json.loads(text)
    return result
