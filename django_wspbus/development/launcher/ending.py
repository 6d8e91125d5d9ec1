"""The end of a site that does not react to signals, as C code in it keeps the GIL: see `plugins.guard`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from ...process.guard_program import SAME_REQUEST, TIME_TO_REACT, TIME_TO_WRITE_STACKS
from .child import Child

AFTER_ITS_OWN = 1.0
"""Seconds after STOP_TIMEOUT, at which the site would have ended by itself."""


class Ending:
    """Ends the site after the time that it has for its exit; ``say(line)`` reports that."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: float | None = None
        self._deadline: float | None = None
        self._is_aborted = False

    def expect(self, child: Child) -> None:
        """Start the time of a site's exit; after a second request leave it a moment."""
        now = time.monotonic()
        if self._told is None or self._deadline is None:
            self._told, self._deadline = now, now + child.stop_timeout + AFTER_ITS_OWN
        elif now - self._told > SAME_REQUEST:
            self._deadline = min(self._deadline, now + TIME_TO_REACT)

    def patience(self) -> float | None:
        """Return the milliseconds within which `attend` is to be called; None: there is no hurry."""
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
