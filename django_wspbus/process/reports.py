"""The reports of a child's processes to the site. They get no answer; requests (`asking`) do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

from .messages import Message


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message over a link; it names the process that opened it."""

    role: str
    """"worker", "master", "other"; "asker": a thread sends requests; "listener": a worker takes orders.

    A worker and a master send the descriptor of their `record.Record` with it.
    """
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetirementPolicy:
    """The settings by which the workers of a child retire. None: never for that reason."""

    requests: int | None = None
    """The number of requests that a worker answers at most, and a random number that is added to it."""
    requests_jitter: int = 0
    memory: int | None = None
    """Bytes of private memory."""
    age: float | None = None
    """Seconds since the worker serves."""
    request_timeout: float | None = None
    """Seconds without progress after which a request counts as stuck."""

    @property
    def is_active(self) -> bool:
        """True if workers retire at all, so that a standby worker waits to replace one."""
        return (self.requests, self.memory, self.age, self.request_timeout) != (None,) * 4


@dataclass(frozen=True, slots=True)
class Expected:
    """The master of a child has loaded the project, and starts this number of workers."""

    workers: int
    """Those that serve; if workers retire, another one stands by."""
    policy: RetirementPolicy = RetirementPolicy()
    leads: bool | None = None
    """True if the project has listeners of the role "leader", or jobs; None: it is not known."""
    version: str = ""
    """The version of the code that it has loaded: see `fleet.version`."""


@dataclass(frozen=True, slots=True)
class Standby:
    """A worker has been forked, and waits for `worker_orders.Begin`."""

    pid: int


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


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer of a worker to `worker_orders.Publish`."""

    number: int
    pid: int
    results: list[Any] | None
    error: str | None


@dataclass(frozen=True, slots=True)
class FilesReopened:
    """A process has reopened its log files: see `system.log_files.Reopened`."""

    pid: int
    files: list[str]
    failures: list[str]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A message for every process of the fleet: `bus.broadcast`."""

    channel: str
    args: list[Any]


@dataclass(frozen=True, slots=True)
class Unsent:
    """Messages for the fleet were dropped, as the site did not read."""

    count: int


Report = (
    Hello
    | Expected
    | Standby
    | Ready
    | Answered
    | Failed
    | Died
    | Stopped
    | Replied
    | FilesReopened
    | Broadcast
    | Unsent
)

OF_THE_FLEET = (Broadcast, Unsent)
"""Reports that say nothing about the process that sends them."""

_KINDS: dict[str, type[Report]] = {kind.__name__: kind for kind in get_args(Report)}


def as_message(report: Report) -> Message:
    return {"report": type(report).__name__, **asdict(report)}


def read_report(message: Message) -> Report:
    """Return the report in a message; KeyError or TypeError if this version does not know it."""
    values = dict(message)
    kind = _KINDS[values.pop("report")]
    if kind is Expected:
        values["policy"] = RetirementPolicy(**values["policy"])
    return kind(**values)
