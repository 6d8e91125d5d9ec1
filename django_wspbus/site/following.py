"""A client that waits for the outcome of an operation, and the outcome in words."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from ..control.protocol import Request
from ..project.tracebacks import explain
from ..wspbus import ChannelFailures, Refusal


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an operation. ``error``: None if all went well.

    ``is_too_late``: it has not begun, because the site restarts: it is for the next program.
    """

    error: Exception | None = None
    is_too_late: bool = False


class Client(Protocol):
    """The client of an operation: a `Call`, or the part of a deploy that is done here."""

    @property
    def action(self) -> str: ...
    @property
    def arguments(self) -> dict[str, Any]: ...
    @property
    def then(self) -> Request | None:
        """The request that the next program has to do for it; None: it waits for the restart itself."""
        ...

    @property
    def is_gone(self) -> bool: ...
    def step(self, text: str) -> None: ...
    def wait_until_gone(self, seconds: float) -> bool: ...
    def detach(self) -> int: ...


class Follower:
    """A client that waits for the outcome of an operation: "reload", "restart", "exit" or "deploy"."""

    def __init__(self, waits_for: str) -> None:
        self.waits_for = waits_for
        self.began = time.monotonic()
        self.items: queue.SimpleQueue[str | Outcome] = queue.SimpleQueue()
        self.outcome: Outcome | None = None
        self.is_served = threading.Event()
        """Set once the client has been sent the outcome, or was handed over, or is gone."""

    def note_outcome(self, error: Exception | None = None, *, is_too_late: bool = False) -> None:
        """Note the end of the operation; the first call counts."""
        if self.outcome is None:
            self.outcome = Outcome(error, is_too_late)
            self.items.put(self.outcome)

    @property
    def age(self) -> float:
        return time.monotonic() - self.began


def reason_of(error: Exception) -> str:
    """Return the reasons of a failure, with the tracebacks of those in the project."""
    if isinstance(error, ChannelFailures):
        return "\n".join(reason_of(each) for each in error.get_instances() if isinstance(each, Exception))
    return str(error) if isinstance(error, Refusal) else explain(error)
