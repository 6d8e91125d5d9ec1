"""The end of a site that does not react to signals, because C code holds the GIL: see `plugins.guard`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from ...process.guard_program import SAME_REQUEST, TIME_TO_REACT, TIME_TO_WRITE_STACKS
from .child import Child

MARGIN = 1.0
"""Seconds after STOP_TIMEOUT, so that the site can end by its own watchdog first."""


class Ending:
    """Ends a site that has not exited in time; ``say(line)`` shows the developer a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._asked: float | None = None
        self._deadline: float | None = None
        self._is_aborted = False

    def expect(self, child: Child) -> None:
        """Count the time of a site's exit from now on; shorten it after a second request."""
        now = time.monotonic()
        if self._asked is None or self._deadline is None:
            self._asked, self._deadline = now, now + child.stop_timeout + MARGIN
        elif now - self._asked > SAME_REQUEST:
            self._deadline = min(self._deadline, now + TIME_TO_REACT)

    def timeout(self) -> float | None:
        """Return the milliseconds until `attend` has to be called; None: no exit is expected."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic()) * 1000 + 1

    def attend(self, child: Child | None) -> None:
        """End the site if its time is up."""
        if self._deadline is None or child is None or time.monotonic() < self._deadline:
            return
        if self._is_aborted:
            self._deadline = None
            child.process.kill()
        else:
            self._is_aborted = True
            self._deadline += TIME_TO_WRITE_STACKS
            self._say(f"The site process {child.process.pid} does not react to signals: ending it.")
            child.process.send_signal(signal.SIGABRT)
