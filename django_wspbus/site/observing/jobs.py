"""The action ``jobs``: every job, with its next tick and its last run."""

from __future__ import annotations

from typing import Any

from ...control.calls import Action, Call
from ...fleet.base import Run, Unavailable
from ...fleet.cron import Job
from ..assembly import Assembly


def jobs(site: Assembly) -> Action:
    def answer(call: Call) -> dict[str, Any]:
        described = site.leader.current_jobs()
        try:
            now, runs = site.leader.runs()
        except Unavailable as error:
            return {"jobs": [_row(each, None, None) for each in described], "trouble": str(error)}
        last = {run.job: run for run in runs}
        rows = [_row(each, last.get(each["name"]), now) for each in described]
        return {"jobs": rows, "trouble": site.leader.trouble}

    return answer


def _row(described: dict[str, Any], run: Run | None, now: float | None) -> dict[str, Any]:
    """Return a job as the client sees it. Times are those of the engine, in seconds since the epoch."""
    row = {"name": described["name"], "schedule": described["expression"], "timezone": described["timezone"]}
    return {**row, "next": None if now is None else _next(Job.described(described), now), **_last(run)}


def _next(job: Job, now: float) -> float | None:
    tick = job.schedule.next(now)
    return None if tick is None else tick + job.delay(tick)


def _last(run: Run | None) -> dict[str, Any]:
    run = run or Run("", 0.0)
    return {
        "tick": run.tick if run.outcome else None,
        "host": run.host,
        "pid": run.pid,
        "began": run.began,
        "seconds": None if run.began is None or run.ended is None else run.ended - run.began,
        "outcome": run.outcome,
        "error": run.error,
        "counts": run.counts,
    }
