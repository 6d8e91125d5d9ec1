"""`@cron`: functions that the leader of the fleet calls at each tick of an expression."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

from django.utils import timezone as django_timezone

from ..system.functions import check_function, place_of

if TYPE_CHECKING:
    from ..wspbus import Messenger

F = TypeVar("F", bound=Callable[[], Any])

JOBS = "fleet.jobs"
"""The channel on which the jobs are subscribed. Nothing is published on it."""

LONGEST_JOB_NAME = 255
"""Characters of the name of a job, as PostgreSQL stores them; it is the same for each engine."""

MOST_COUNTED = 1000
"""Ticks that are counted one by one: an expression of each minute has 1,440 a day."""


class Schedule:
    """The ticks of a cron expression of five fields, as seconds since the epoch.

    ``timezone``: the name of a time zone; None: TIME_ZONE. As in Debian's cron, a job of a given hour runs
    once on the days on which the clocks change.
    """

    def __init__(self, expression: str, timezone: str | None = None) -> None:
        self.expression = expression
        self.timezone = timezone
        if len(expression.split()) != 5:
            raise ValueError(f"A cron expression has five fields, as '0 3 * * *', and not {expression!r}.")
        try:
            self._zone: tzinfo | None = None if timezone is None else ZoneInfo(timezone)
        except (KeyError, OSError, ValueError):
            raise ValueError(f"There is no time zone {timezone!r}.") from None
        try:
            next(self.after(0.0))
        except StopIteration:
            raise ValueError(f"The cron expression {expression!r} has no tick at all.") from None

    def after(self, time: float) -> Iterator[float]:
        """Yield the ticks after a time."""
        for tick in self._ticks(time):
            if tick > time:  # in the hour that comes twice, cronsim yields its earlier ticks again
                yield tick

    def next(self, time: float) -> float | None:
        """Return the first tick after a time; None if there is none within 50 years."""
        return next(self.after(time), None)

    def between(self, after: float, until: float) -> list[float]:
        """Return the ticks after one time and until another: all, or `MOST_COUNTED` of them and the last."""
        found: list[float] = []
        for tick in self.after(after):
            if tick > until:
                return found
            found.append(tick)
            if len(found) == MOST_COUNTED:
                break
        else:
            return found
        last = next(self._ticks(math.floor(until) + 1.0, reverse=True), None)
        return found if last is None or last <= found[-1] else [*found, last]

    def _ticks(self, time: float, *, reverse: bool = False) -> Iterator[float]:
        from cronsim import CronSim, CronSimError

        zone = self._zone or django_timezone.get_default_timezone()
        try:
            ticks = CronSim(self.expression, datetime.fromtimestamp(time, zone), reverse=reverse)
        except CronSimError as error:
            raise ValueError(f"{self.expression!r} is no cron expression: {error}.") from None
        return (tick.timestamp() for tick in ticks)


class Job:
    """A function that runs at each tick of a schedule. Calling it calls the function."""

    def __init__(
        self,
        function: Callable[[], Any],
        schedule: Schedule,
        *,
        name: str | None = None,
        jitter: float = 0.0,
        catch_up: bool = False,
        most_late: float | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.schedule = schedule
        self.name = name or f"{function.__module__}.{function.__qualname__}"
        self.jitter = jitter
        self.catch_up = catch_up
        self.most_late = most_late

    def __call__(self) -> Any:
        return self.function()

    def __repr__(self) -> str:
        return f"<Job {self.name}>"

    def description(self) -> dict[str, Any]:
        """Return the job as JSON has it, without its function."""
        return {
            "name": self.name,
            "expression": self.schedule.expression,
            "timezone": self.schedule.timezone,
            "jitter": self.jitter,
            "catch_up": self.catch_up,
            "most_late": self.most_late,
        }

    @classmethod
    def described(cls, description: dict[str, Any]) -> Job:
        """Return a job that has a description, and no function."""
        values = dict(description)
        schedule = Schedule(values.pop("expression"), values.pop("timezone"))
        return cls(lambda: None, schedule, **values)

    def delay(self, tick: float) -> float:
        """Return the seconds by which the jitter delays a tick: the same ones in each process."""
        if not self.jitter:
            return 0.0
        digest = hashlib.sha256(f"{self.name} {tick:.0f}".encode()).digest()
        return self.jitter * int.from_bytes(digest[:4]) / 2**32

    def is_too_late(self, tick: float, now: float, lease: float) -> bool:
        """Return whether a tick is to be skipped, because it was due too long ago."""
        most_late = lease + MOST_LATE if self.most_late is None else self.most_late
        return not self.catch_up and now > tick + self.delay(tick) + most_late


MOST_LATE = 60.0
"""Seconds, beside the lease, by which a run may be late: a leader that dies delays it by the lease."""


def cron(
    expression: str,
    *,
    timezone: str | None = None,
    name: str | None = None,
    jitter: float = 0.0,
    catch_up: bool = False,
    grace: float | None = None,
) -> Callable[[F], F]:
    """Decorate a function to be called at each tick of a cron expression, by the leader of the fleet.

    ``timezone``: the name of a time zone, by default TIME_ZONE. ``name``: that of the job, by default the
    dotted name of the function. ``jitter``: the most seconds by which a run is delayed, at random. A tick
    that is more than ``grace`` seconds late is skipped, by default the lease and 60 s; with ``catch_up`` the
    last one that was missed runs, however late it is. ValueError and TypeError for arguments that make no
    sense, and for a function that cannot be a job; ImportError without the library cronsim.
    """
    from ..process.bus import bus

    try:
        import cronsim  # noqa: F401
    except ImportError:
        raise ImportError('@cron needs the library cronsim: pip install "django-wspbus[cron]"') from None
    _check_texts(expression, timezone, name)
    _check_seconds("jitter", jitter)
    if not isinstance(catch_up, bool):
        raise TypeError(f"catch_up is True or False, and not {catch_up!r}.")
    if grace is not None:
        _check_seconds("grace", grace)
    schedule = Schedule(expression, timezone)

    def decorate(function: F) -> F:
        check_function(function, "@cron")
        if name is None and not hasattr(function, "__qualname__"):
            raise TypeError(f"{function!r} has no name of its own: give the job a name=.")
        job = Job(function, schedule, name=name, jitter=jitter, catch_up=catch_up, most_late=grace)
        if len(job.name) > LONGEST_JOB_NAME or "\0" in job.name:
            raise ValueError(
                f"The job {place_of(function)} has a name of {len(job.name)} characters: give it a name= of "
                f"{LONGEST_JOB_NAME} at most, without NUL."
            )
        for other in jobs_of(bus):
            if other.name == job.name:
                places = f"{place_of(other.function)} and {place_of(function)}"
                raise ValueError(
                    f"Two jobs have the name {job.name!r}, {places}: give one of them another name=."
                )
        bus.subscribe(JOBS, job, role="leader")
        return function

    return decorate


def _check_texts(expression: Any, timezone: Any, name: Any) -> None:
    if not isinstance(expression, str):
        raise TypeError(f"@cron takes an expression first, as @cron('0 3 * * *'), and not {expression!r}.")
    if not isinstance(timezone, str | None):
        raise TypeError(f"timezone is the name of a time zone, and not {timezone!r}.")
    if not isinstance(name, str | None) or name == "":
        raise TypeError(f"name is the name of the job, and not {name!r}.")


def _check_seconds(key: str, seconds: Any) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ValueError(f"{key} is a number of seconds from 0 on, and not {seconds!r}.")


def jobs_of(bus: Messenger) -> list[Job]:
    """Return the jobs that are subscribed on a bus, in the order of their names."""
    found = [job for job in list(bus.listeners.get(JOBS, ())) if isinstance(job, Job)]
    return sorted(found, key=lambda job: job.name)


def local_time(time: float) -> str:
    """Return a time of the engine, in UTC, for the log."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
