"""The orders of the site to one worker, over the link on which it listens: see `RemoteSite.listen`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

from .messages import Message


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the bus, and serve: the worker was a standby worker."""


@dataclass(frozen=True, slots=True)
class Retire:
    """Stop accepting, answer what is in flight, and exit.

    The moments, of `time.monotonic`, at which requests and then the stop listeners are cut off.
    """

    requests: float
    listeners: float


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish on a channel; the worker answers with `reports.Replied` of the same number."""

    number: int
    channel: str
    args: list[Any]


@dataclass(frozen=True, slots=True)
class Changed:
    """Files have changed: see `plugins.autoreload`."""

    files: list[str]


@dataclass(frozen=True, slots=True)
class Deliver:
    """Publish a message of the fleet on a channel, without an answer: see `inbox`."""

    sender: str
    """"host:pid" of the site that sent it."""
    channel: str
    args: list[Any]


@dataclass(frozen=True, slots=True)
class Missed:
    """Messages of the fleet that this process was to get were dropped, as it did not read."""

    count: int


@dataclass(frozen=True, slots=True)
class Released:
    """The lease of the leader has been released: a leader process looks at it now."""


Order = Begin | Retire | Publish | Changed | Deliver | Missed | Released

_KINDS: dict[str, type[Order]] = {kind.__name__: kind for kind in get_args(Order)}


def as_message(order: Order) -> Message:
    if isinstance(order, Deliver):  # there are many of these, and `asdict` copies what they hold
        return {
            "order": "Deliver",
            "sender": order.sender,
            "channel": order.channel,
            "args": order.args,
        }
    return {"order": type(order).__name__, **asdict(order)}


def read_order(message: Message) -> Order:
    """Return the order in a message; KeyError or TypeError if this version does not know it."""
    values = dict(message)
    return _KINDS[values.pop("order")](**values)
