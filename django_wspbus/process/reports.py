"""What the processes of a child report to the site, without an answer; `asking` is for what wants one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import get_args

from .messages import Message


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message over a link: which process has opened it."""

    role: str
    """"worker", "master", "other", or "asker" for a link over which a thread asks the site."""
    pid: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The master of a child has loaded the project, and starts so many workers."""

    workers: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has booted, and waits to be released."""

    pid: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A worker has answered its first request."""

    pid: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A process cannot serve. ``status``: the one with which the site exits if that ends its start."""

    reason: str
    status: int


@dataclass(frozen=True, slots=True)
class Died:
    """A worker has ended before it was ready, as the master of the child sees it."""

    pid: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stop listeners of a worker have run, and it is about to end."""

    pid: int
    failures: list[str]
    """The listeners that failed or were cut off, a sentence each."""
    cut_off: str
    """The requests that were not answered, in words."""


Report = Hello | Expected | Ready | Answered | Failed | Died | Stopped

_KINDS: dict[str, type[Report]] = {kind.__name__: kind for kind in get_args(Report)}


def as_message(report: Report) -> Message:
    return {"report": type(report).__name__, **asdict(report)}


def read_report(message: Message) -> Report:
    """Return the report in a message; KeyError or TypeError if it holds none that this version knows."""
    values = dict(message)
    return _KINDS[values.pop("report")](**values)
