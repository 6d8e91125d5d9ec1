"""The next steps for the workers of a child, from plain values."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field


class Reason(enum.Enum):
    """The reason why a worker retires; the first ones are the most urgent."""

    TIMEOUT = "timeout"
    MEMORY = "memory"
    REQUESTS = "requests"
    AGE = "age"
    SCALE = "scale"


URGENCY = {reason: number for number, reason in enumerate(Reason)}


class LifeStage(enum.Enum):
    """The stage of a worker in its life, from its reports."""

    FORKED = "forked"
    """It will report that it stands by."""
    STANDBY = "standby"
    BOOTING = "booting"
    SERVING = "serving"
    STOPPING = "stopping"
    """Its stop listeners have run."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker, as the plan knows it."""

    pid: int
    stage: LifeStage
    ready_since: float = 0.0
    """The time at which it was ready; the oldest is the lowest."""
    retires: bool = False
    """True once the site has decided to replace it."""
    is_ordered: bool = False
    """True once it has the order to retire, and so accepts no more connections."""
    reason: Reason | None = None
    """The reason to replace it, if there is one."""
    is_stuck: bool = False
    """True if a request of it is stuck."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The PIDs of workers, by what the site does with them next."""

    release: list[int] = field(default_factory=list)
    """Standby workers that begin."""
    retire: dict[int, Reason] = field(default_factory=dict)
    """Workers that are replaced from now on; they serve until their successors do."""
    order: list[int] = field(default_factory=list)
    """Workers whose successors serve: they stop accepting."""


def make_plan(workers: Iterable[Worker], wanted: int) -> Plan:
    """Return the next steps for the workers of a child in which a number of them is to serve.

    Orders never leave fewer than ``wanted`` workers that accept connections. One worker retires at a time,
    unless each that serves is stuck; those that are too many retire together.
    """
    workers = sorted(workers, key=lambda worker: (worker.ready_since, worker.pid))
    serving = [each for each in workers if each.stage is LifeStage.SERVING and not each.retires]
    too_many = serving[: max(len(serving) - wanted, 0)]
    others = serving[len(too_many) :]
    retire = dict.fromkeys((each.pid for each in too_many), Reason.SCALE)
    retire |= {each.pid: each.reason for each in _due(workers, others) if each.reason is not None}

    active = [
        each for each in workers if each.stage in (LifeStage.BOOTING, LifeStage.SERVING) and not each.retires
    ]
    missing = wanted - sum(each.pid not in retire for each in active)
    release = [each.pid for each in workers if each.stage is LifeStage.STANDBY][: max(missing, 0)]

    accepting = [each for each in workers if each.stage is LifeStage.SERVING and not each.is_ordered]
    waiting = [each.pid for each in accepting if each.retires or each.pid in retire]
    order = waiting[: max(len(accepting) - wanted, 0)]
    return Plan(release, retire, order)


def _due(workers: list[Worker], serving: list[Worker]) -> list[Worker]:
    """Return the workers to replace next, of those that serve and are not too many."""
    due = [each for each in serving if each.reason is not None]
    if due and all(each.is_stuck for each in serving):
        return due
    if not due or any(each.retires for each in workers):
        return []
    return [min(due, key=lambda each: URGENCY[each.reason] if each.reason else len(URGENCY))]
