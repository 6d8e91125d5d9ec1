"""The reports of a child's processes to the site. They get no answer; requests (`asking`) do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import get_args

from .messages import Message


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message over a link; it names the process that opened it."""

    role: str
    """"worker", "master", "other"; "asker": a thread sends requests; "listener": the site asks a worker."""
    pid: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The master of a child has loaded the project, and starts this number of workers."""

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
    """A process cannot serve. ``status``: the exit status of the site if this ends its start."""

    reason: str
    status: int


@dataclass(frozen=True, slots=True)
class Died:
    """The master of the child has seen a worker end before it was ready."""

    pid: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stop listeners of a worker have run, and it is about to end."""

    pid: int
    failures: list[str]
    """A sentence for each listener that failed or was cut off."""
    cut_off: str
    """A sentence about the requests that got no answer."""


Report = Hello | Expected | Ready | Answered | Failed | Died | Stopped

_KINDS: dict[str, type[Report]] = {kind.__name__: kind for kind in get_args(Report)}


def as_message(report: Report) -> Message:
    return {"report": type(report).__name__, **asdict(report)}


def read_report(message: Message) -> Report:
    """Return the report in a message; KeyError or TypeError if this version does not know it."""
    values = dict(message)
    return _KINDS[values.pop("report")](**values)
