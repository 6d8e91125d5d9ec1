"""The private memory of workers, and the workers that hold too much of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ...system.memory import most_private_memory, private_memory

INTERVAL = 5.0
"""Seconds between two measurements of the workers of a child."""

YOUNG = 30.0
"""Seconds within which a worker has grown too fast: its successor most likely will, too."""

FIRST_WAIT = 60.0
"""Seconds without a retirement for memory, after a worker that was replaced would not help."""

LONGEST_WAIT = 3600.0


class MemoryLimit:
    """Measures workers, in a thread of its own, and says which of them hold too much.

    ``changed()`` is called after each measurement, and ``say(pid, age, seconds)`` when workers exceed the
    limit as soon as they serve, so that none retires for its memory for these seconds.
    """

    def __init__(self, changed: Callable[[], None], say: Callable[[int, float, float], None]) -> None:
        self.sizes: dict[int, int] = {}
        """PID -> bytes of those that exceed the limit."""
        self._changed = changed
        self._say = say
        self._measured: set[int] = set()
        self._exceeding: set[int] = set()
        self._next = 0.0
        self._is_measuring = False
        self._failures = 0
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
            self._measured |= set(pids) - set(self.sizes)
        finally:
            self._is_measuring = False
        if self.sizes:
            self._changed()

    def is_exceeded(self, pid: int, age: float, now: float) -> bool:
        """Return whether a worker of this age has to retire for its memory, now."""
        if pid not in self.sizes:
            return False
        if pid not in self._exceeding:
            self._exceeding.add(pid)
            self._note(pid, age, now)
        return now >= self._waits_until

    def _note(self, pid: int, age: float, now: float) -> None:
        """Back off if a worker exceeds the limit from the beginning, or if several grow too fast in a row."""
        if age > YOUNG:
            self._failures = 0
        elif now >= self._waits_until:
            grew = pid in self._measured
            self._failures = self._failures + 1 if grew else max(self._failures, 1) + 1
            if self._failures > 1:
                wait = min(FIRST_WAIT * 2 ** min(self._failures - 2, 30), LONGEST_WAIT)
                self._waits_until = now + wait
                self._say(pid, age, wait)

    def forget_others(self, pids: Iterable[int]) -> None:
        """Forget the workers that have ended."""
        self._measured.intersection_update(pids)
        self._exceeding.intersection_update(pids)
