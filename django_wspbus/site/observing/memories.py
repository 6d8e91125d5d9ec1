"""The private memory of processes, measured within a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from ...system.memory import private_memory

BUDGET = 0.5
"""Seconds for the measurements of one call: those of 64 large workers take longer."""


class Memories:
    """Measures processes, first those whose measurement is the oldest; of the others the last one counts."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, int | None]] = {}
        self._turn = threading.Lock()

    def measure(self, pids: Iterable[int]) -> dict[int, int | None]:
        """Return the bytes of each process; None if they are not known."""
        with self._turn:
            began = time.monotonic()
            self._known = {pid: self._known.get(pid, (0.0, None)) for pid in pids}
            for pid in sorted(self._known, key=lambda pid: self._known[pid][0]):
                self._known[pid] = time.monotonic(), private_memory(pid)
                if time.monotonic() - began > BUDGET:
                    break
            return {pid: size for pid, (_, size) in self._known.items()}
