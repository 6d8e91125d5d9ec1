"""The private memory of workers, and the workers that hold too much of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from ...system.memory import most_private_memory, private_memory

INTERVAL = 2.0
"""Seconds between two measurements of the workers of a child. A new worker is measured at once."""

YOUNG = 30.0
"""Seconds of a worker's life within which it has grown fast: its successor most likely will, too."""

FIRST_WAIT, FIRST_WAIT_FOR_GROWTH = 60.0, 1.0
"""Seconds without a retirement for memory: after a worker that held too much when it was ready, as its
successor will; and after two workers in a row that have grown fast. The next waits double."""

LONGEST_WAIT, LONGEST_WAIT_FOR_GROWTH = 3600.0, 60.0


class MemoryLimit:
    """Measures workers, in a thread of its own, and says which of them hold too much.

    ``changed()`` is called after a measurement that finds one, and ``say(pid, age, seconds)`` if a worker
    exceeds the limit from the beginning, so that none retires for its memory for these seconds.
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

    def look(self, limits: Mapping[int, int], now: float) -> None:
        """Start a measurement of workers that are ready, unless there was one of them a moment ago.

        ``limits``: PID -> the bytes that the worker may hold.
        """
        is_new = not limits.keys() <= self._measured | set(self.sizes)
        if (is_new or now >= self._next) and not self._is_measuring:
            self._next, self._is_measuring = now + INTERVAL, True
            try:
                threading.Thread(target=self._measure, args=(limits,), name="Memory", daemon=True).start()
            except BaseException:  # the machine has no thread left: the next look tries again
                self._is_measuring = False
                raise

    def _measure(self, limits: Mapping[int, int]) -> None:
        try:
            large = [pid for pid, limit in limits.items() if (most_private_memory(pid) or 0) > limit]
            sizes = {pid: private_memory(pid) or 0 for pid in large}
            self.sizes = {pid: size for pid, size in sizes.items() if size > limits[pid]}
            self._measured |= limits.keys() - self.sizes.keys()
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
        """Back off if a worker exceeds the limit from the beginning, or if several grow fast in a row."""
        if age > YOUNG:
            self._failures = 0
        elif now >= self._waits_until:
            self._failures += 1
            if pid not in self._measured:
                wait = _wait(FIRST_WAIT, self._failures, LONGEST_WAIT)
                self._say(pid, age, wait)
            else:
                wait = _wait(FIRST_WAIT_FOR_GROWTH, self._failures - 1, LONGEST_WAIT_FOR_GROWTH)
            self._waits_until = now + wait

    def forget_others(self, pids: Iterable[int]) -> None:
        """Forget the workers that have ended."""
        self._measured.intersection_update(pids)
        self._exceeding.intersection_update(pids)


def _wait(first: float, number: int, longest: float) -> float:
    """Return the seconds to wait for the nth time in a row; none before the first time."""
    return min(first * 2 ** min(number - 1, 30), longest) if number > 0 else 0
