"""The saturation of a child: every thread of every worker that serves has been busy for a while."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..process.record import Record
from .child import Child


def saturated_for(child: Child) -> float | None:
    """Return the seconds for which every thread of a child has been busy; None if one is free, or unknown."""
    progress = child.progress
    # Copied, as another thread writes it.
    pids = {progress.workers.get(each) for each in list(progress.ready)}
    records = [child.records.get(pid) for pid in pids if pid is not None]
    try:
        return busy_for([each for each in records if each is None or not each.retiring], time.monotonic())
    except ValueError:  # a worker has just ended, and its record is closed
        return None


def busy_for(records: Iterable[Record | None], now: float) -> float | None:
    """Return the seconds for which every thread of these workers has been busy, as `saturated_for`."""
    moments = [None if record is None else _busy_since(record, now) for record in records]
    if not moments or None in moments:
        return None
    return now - max(moment for moment in moments if moment is not None)


def _busy_since(record: Record, now: float) -> float | None:
    threads = record.threads
    busy = sorted(record.slots.busy_threads(now))
    if not threads or len(busy) < threads:
        return None
    since: float = busy[threads - 1]
    return since
