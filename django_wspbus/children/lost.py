"""The requests that a process was answering when it ended."""

from __future__ import annotations

import time

from ..process.record import Record

MOST_NAMED = 20
"""Requests that a message names."""


def lost_requests(record: Record) -> str:
    """Return the requests in flight of a process that has ended in words, the oldest first; "" if none."""
    now = time.monotonic()
    requests = sorted(record.slots.in_flight(), key=lambda request: request.started)
    words = [f"{request.name} (after {now - request.started:.1f} s)" for request in requests[:MOST_NAMED]]
    if (more := len(requests) - len(words) + record.unrecorded) > 0:
        words.append(f"and {more} others")
    return ", ".join(words)
