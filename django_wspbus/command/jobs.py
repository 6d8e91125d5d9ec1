"""The leader process and the jobs of a site, as blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from .blocks import Block, Line, Table
from .text import NOTHING, as_duration, as_text, cut, plural

NEEDS_ATTENTION = ("failed", "lost")


def jobs(result: Mapping[str, Any]) -> Iterator[Block]:
    """Yield a row for each job, and the errors of the last runs."""
    found = result.get("jobs") or ()
    if trouble := result.get("trouble"):
        yield Line(cut(str(trouble)), "bad")
    if not found:
        yield Line("There are no jobs.")
        return
    yield Table(
        ["Job", "Schedule", "Next run", "Last tick", "Host", "Process", "Took", "Outcome", "Runs"],
        [_job(each) for each in found],
        right=("Process", "Took"),
        bad=frozenset(index for index, each in enumerate(found) if each.get("outcome") in NEEDS_ATTENTION),
    )
    for each in found:
        if error := each.get("error"):
            yield Line(f"{cut(as_text(each.get('name')))}: {cut(str(error))}", "bad")


def _job(job: Mapping[str, Any]) -> list[str]:
    timezone = job.get("timezone")
    return [
        as_text(job.get("name")),
        as_text(job.get("schedule")) + (f" {timezone}" if timezone else ""),
        _moment(job.get("next")),
        _moment(job.get("tick")),
        as_text(job.get("host") or None),
        as_text(job.get("pid") or None),
        as_duration(job.get("seconds")),
        as_text(job.get("outcome") or None),
        ", ".join(f"{number} {cut(name)}" for name, number in (job.get("counts") or {}).items()) or NOTHING,
    ]


def _moment(seconds: float | None) -> str:
    return NOTHING if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def leader(status: Mapping[str, Any] | None) -> Iterator[Block]:
    """Yield a line about the leader process, if there is one."""
    if not status:
        return
    counted = plural(int(status.get("jobs") or 0), "job")
    pid, state, since = as_text(status.get("pid")), status.get("state"), as_duration(status.get("since"))
    match state:
        case "leads":
            text = (
                f"process {pid} leads, for {since}, with the token {as_text(status.get('token'))}; {counted}"
            )
        case "candidate":
            holder = status.get("holder")
            text = f"process {pid} waits; {cut(str(holder))} leads" if holder else f"process {pid} waits"
        case "booting":
            text = "no process yet"
        case _:
            text = f"no process: {as_text(status.get('trouble'))}"
    yield Line("")
    yield Line(f"Leader: {text}", "" if state != "down" else "bad")
