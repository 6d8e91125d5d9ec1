"""The moments of an exit at which a process of a child is cut off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Deadlines:
    """The moments of `time.monotonic` at which requests and listeners are cut off: None before an exit."""

    def __init__(self) -> None:
        self.requests: float | None = None
        self.listeners: float | None = None
        self._changed = threading.Condition()

    def shorten(self, requests: float, listeners: float) -> bool:
        """Set the moments, or replace them by earlier ones; return True if they are the first."""
        with self._changed:
            is_first = self.requests is None
            self.requests = min(requests, self.requests or requests)
            self.listeners = min(listeners, self.listeners or listeners)
            self._changed.notify_all()
        return is_first

    def await_requests(self) -> None:
        self._await(lambda: self.requests or 0)

    def await_listeners(self) -> None:
        self._await(lambda: self.listeners or 0)

    def _await(self, moment: Callable[[], float]) -> None:
        with self._changed:
            while (left := moment() - time.monotonic()) > 0:
                self._changed.wait(left)
