"""The private memory of workers, and the workers that hold too much of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ...system.memory import most_private_memory, private_memory

INTERVAL = 5.0
"""Seconds between two measurements of the workers of a child."""

YOUNG = 30.0
"""A worker that exceeds the limit within these seconds would be followed by one that does so, too."""

FIRST_WAIT = 60.0
"""Seconds without a retirement for memory after a worker has exceeded the limit right after its boot."""

LONGEST_WAIT = 3600.0


class MemoryLimit:
    """Measures workers, in a thread of its own, and says which of them hold too much.

    ``changed()`` is called after each measurement, and ``say(pid, bytes, seconds)`` when a worker exceeds the
    limit right after its boot, so that no worker retires for its memory for these seconds.
    """

    def __init__(self, changed: Callable[[], None], say: Callable[[int, int, float], None]) -> None:
        self.sizes: dict[int, int] = {}
        """PID -> bytes of those that exceed the limit."""
        self._changed = changed
        self._say = say
        self._first_seen: dict[int, float] = {}
        self._next = 0.0
        self._is_measuring = False
        self._wait = 0.0
        self._waits_until = 0.0

    def look(self, pids: Iterable[int], limit: int, now: float) -> None:
        """Start a measurement, unless there was one a moment ago."""
        if now >= self._next and not self._is_measuring:
            self._next, self._is_measuring = now + INTERVAL, True
            arguments = list(pids), limit
            threading.Thread(target=self._measure, args=arguments, name="Memory", daemon=True).start()

    def _measure(self, pids: list[int], limit: int) -> None:
        try:
            measured = {pid: private_memory(pid) for pid in pids if (most_private_memory(pid) or 0) > limit}
            self.sizes = {pid: size for pid, size in measured.items() if size is not None and size > limit}
        finally:
            self._is_measuring = False
        if self.sizes:
            self._changed()

    def is_exceeded(self, pid: int, age: float, now: float) -> bool:
        """Return whether a worker of this age has to retire for its memory, now."""
        size = self.sizes.get(pid)
        if size is None:
            return False
        if pid not in self._first_seen:
            self._first_seen[pid] = now
            if age > YOUNG:
                self._wait = 0.0
            elif now >= self._waits_until:
                self._wait = min(max(2 * self._wait, FIRST_WAIT), LONGEST_WAIT)
                self._waits_until = now + self._wait
                self._say(pid, size, self._wait)
        return now >= self._waits_until

    def forget_others(self, pids: Iterable[int]) -> None:
        """Forget the workers that have ended."""
        pids = set(pids)
        self._first_seen = {pid: seen for pid, seen in self._first_seen.items() if pid in pids}
