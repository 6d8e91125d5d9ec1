"""The state of each process of a site, and its figures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ...process.record import Record, Stage
from ...system.processes import is_suspended
from .processes import ObservedProcess
from .requests import is_stuck

REASONS = {
    "timeout": "a request is stuck (REQUEST_TIMEOUT)",
    "memory": 'it holds too much memory (RECYCLE["MEMORY"])',
    "requests": 'it has answered enough requests (RECYCLE["REQUESTS"])',
    "age": 'it is old enough (RECYCLE["AGE"])',
    "scale": "the server has fewer workers from now on",
}
"""The reasons for which a worker retires, in words."""


def described(process: ObservedProcess, memory: int | None) -> dict[str, Any]:
    """Return a process of a child as the client sees it."""
    now = time.monotonic()
    found: dict[str, Any] = {
        "pid": process.pid,
        "role": process.role,
        "state": state_of(process, now),
        "age": None,
        "threads": None,
        "busy": None,
        "answered": None,
        "memory": memory,
        "reason": why_it_retires(process),
    }
    if process.record is not None:
        try:
            found |= _figures(process.record, now, is_worker=process.role == "worker")
        except ValueError:  # it has just ended
            found["state"] = "draining"
    return found


def _figures(record: Record, now: float, *, is_worker: bool) -> Mapping[str, Any]:
    age = {"age": max(now - record.born, 0.0)}
    if not is_worker:
        return age
    busy = sum(1 for _ in record.slots.in_flight()) + record.unrecorded
    return {**age, "threads": record.threads or None, "busy": busy, "answered": record.slots.answered}


def state_of(process: ObservedProcess, now: float) -> str:
    """Return the state of a process in a word; the one that matters most."""
    child = process.child
    if is_suspended(process.pid):
        return "stopped"
    if child is None:
        return "serving"
    if child.deadline is not None or process.pid in child.progress.stopped:
        return "draining"
    if process.role == "master":
        return "serving" if child.is_serving else "booting"
    if process.pid in child.retiring:
        return "retiring"
    if any(is_stuck(request, now, process.request_timeout) for request in process.in_flight()):
        return "stuck"
    return _stage(process)


def _stage(process: ObservedProcess) -> str:
    try:
        stage = None if process.record is None else process.record.stage
    except ValueError:  # it has just ended
        return "draining"
    match stage:
        case Stage.STANDBY:
            return "standby"
        case Stage.BOOTING:
            return "booting"
        case Stage.READY:
            return "ready"
        case None:  # a server of the project, whose processes have no records
            return "serving" if process.child is not None and process.child.is_serving else "booting"
    return "serving"


def why_it_retires(process: ObservedProcess) -> str | None:
    retiree = None if process.child is None else process.child.retiring.get(process.pid)
    return None if retiree is None else REASONS.get(retiree.reason, retiree.reason)
