"""The state of a connection with the engine, and the engine's time."""

from __future__ import annotations

import logging
import time

from ..system.backoff import Backoff
from .base import Unavailable

logger = logging.getLogger("django_wspbus")

LONGEST_WAIT = 5.0
"""Seconds between two attempts to connect, at most."""


class Connection:
    """The state of a connection, and the time of the next attempt.

    ``purpose``: for the log; ``lease``: the seconds for which it has to stay up before the log says that the
    engine answers again; ``logs_after``: the number of failures after which the log names the error.
    """

    def __init__(self, purpose: str, lease: float, logs_after: int = 1) -> None:
        self._purpose = purpose
        self._lease = lease
        self._longest_wait = min(LONGEST_WAIT, lease / 3)
        self._backoff = Backoff()
        self._logs_after = logs_after
        self._is_logged = False
        self.is_up = False
        self.since = time.monotonic()
        self.error = Unavailable("The engine of the fleet has not answered yet.")
        """The last error."""
        self.failures = 0
        """The number of failures so far."""
        self.retry_at = 0.0
        """The time of `time.monotonic` of the next attempt."""

    def note_up(self) -> None:
        """Note that the engine has answered. Call it again and again while it does."""
        now = time.monotonic()
        if not self.is_up:
            self.is_up, self.since = True, now
        # An engine that fails soon after each connect must not fill the log.
        if self._is_logged and now - self.since >= self._lease:
            self._is_logged = False
            logger.warning("The engine of the fleet answers again (%s).", self._purpose)

    def note_down(self, error: Unavailable, *, is_logged: bool = True) -> None:
        """Note a failure, and set the time of the next attempt; ``is_logged``: the log may name it."""
        self.error = error
        self.failures += 1
        now = time.monotonic()
        # An engine may answer the first call after each connect, and refuse the next one.
        worked = self.is_up and now - self.since >= self._longest_wait
        self.retry_at = now + min(self._backoff.note(worked=worked), self._longest_wait)
        if self.is_up:
            self.is_up, self.since = False, now
        if is_logged and not self._is_logged and self._backoff.failures >= self._logs_after:
            self._is_logged = True
            logger.error("The engine of the fleet is unavailable (%s): %s", self._purpose, error)


class EngineClock:
    """The time of the engine, from one measurement to the next."""

    def __init__(self) -> None:
        self._offset: float | None = None

    @property
    def is_known(self) -> bool:
        return self._offset is not None

    def measure(self, answer: float, asked: float) -> None:
        """Note the engine's time that came as the answer to a call made at ``asked`` of `time.monotonic`."""
        self._offset = answer - (asked + time.monotonic()) / 2

    def now(self) -> float:
        """Return the time of the engine, in seconds since the epoch."""
        assert self._offset is not None
        return self._offset + time.monotonic()
