"""A boot that does not end: a loop, a lock, a question on the terminal that nobody sees."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...process.messages import RELAUNCH, Received
from .child import TIME_TO_BOOT, Child

TIME_TO_END = 1.0
"""Seconds in which a boot that is given up may end by itself."""


class BootWatch:
    """Has files watched while a site takes long to start, and gives that start up when one changes.

    ``spawn()`` starts what watches: an error page that shows nothing.
    """

    def __init__(self, spawn: Callable[[], Child]) -> None:
        self.watcher: Child | None = None
        self._spawn = spawn
        self._killing_at: float | None = None

    def patience(self, child: Child | None) -> float | None:
        """Return the milliseconds within which `attend` is to be called; None: there is no hurry."""
        moment = self._killing_at
        if moment is None and self.watcher is None and child is not None and child.is_booting:
            moment = child.boot_ends
        return None if moment is None else max(0.0, moment - time.monotonic()) * 1000 + 1

    def attend(self, child: Child | None) -> list[Received]:
        """Do what it is time for; return what the watcher has told of the files."""
        watcher, now = self.watcher, time.monotonic()
        if child is None or not child.is_booting:
            self.end()
        elif self._killing_at is not None:
            if now >= self._killing_at:
                child.process.kill()
        elif watcher is None:
            if now >= child.boot_ends:
                self.watcher = self._spawn()
        elif watcher.process.poll() is not None:
            told = watcher.last_words()
            has_seen = watcher.process.returncode == RELAUNCH
            self.end()
            child.boot_ends = now + TIME_TO_BOOT
            if has_seen:
                child.relaunching = True
                child.process.terminate()
                self._killing_at = now + TIME_TO_END
            return told
        return []

    def end(self) -> None:
        """Watch no longer: the boot has ended, in one way or the other."""
        self._killing_at = None
        if self.watcher is not None:
            self.watcher.end()
            self.watcher = None
