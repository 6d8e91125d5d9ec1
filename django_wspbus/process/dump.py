"""The stacks that the faulthandler of a process writes at a signal, as another process waits for them."""

from __future__ import annotations

import time

from ..system.processes import has_running_thread, state_of

DUMP_TIMEOUT = 2.0
"""Seconds for a process to write its stacks. Only a machine that is overloaded needs more than a few ms."""

STABLE, STABLE_WHILE_RUNNING = 0.03, 0.3
"""Seconds without a further byte after which the stacks count as whole, as they have no end mark.

The second one holds while a thread of the process runs, which may be the one that writes them.
"""

LOOK_INTERVAL = 0.01
"""Seconds between two looks at the stacks that are being written."""

ENDED_OR_STOPPED = ("T", "t", "Z", "")
"""States in which a process reacts to no signal: see `state_of`."""


class Growth:
    """The growth of the stacks that a process writes from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._deadline = time.monotonic() + DUMP_TIMEOUT
        self._length, self._changed = 0, 0.0

    def has_ended(self, length: int) -> bool:
        """Return True if the stacks are whole at this length, or, with the length 0, if none will come."""
        now = time.monotonic()
        if length != self._length:
            self._length, self._changed = length, now
        if now >= self._deadline:
            return True
        if not length:
            return state_of(self._pid) in ENDED_OR_STOPPED
        stable = now - self._changed
        return stable >= STABLE_WHILE_RUNNING or (stable >= STABLE and not has_running_thread(self._pid))
