"""Messages that wait for a process to read them, and may be dropped if it does not."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from .encoding import Message, encode

logger = logging.getLogger("django_wspbus")

MOST_WAITING = 10_000
MOST_BYTES = 16 * 2**20
"""Messages, and their bytes, that wait for one process; beyond that, the oldest are dropped."""


class Outbox:
    """A queue of encoded messages for one process. ``name()`` returns its name for the log."""

    def __init__(self, name: Callable[[], str]) -> None:
        self._name = name
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._size = 0
        self._lost = 0
        self._notice: Callable[[int], Message] | None = None
        self._lock = threading.RLock()  # a signal handler may interrupt its owner

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, data: bytes, lost: Callable[[int], Message], count: int = 1) -> None:
        """Add a message; ``lost(number)`` makes the one that takes the place of those that were dropped.

        ``count``: the number that is lost with it, which is larger for a message that announces a loss.
        """
        with self._lock:
            self._waiting.append((data, count))
            self._size += len(data)
            while len(self._waiting) > 1 and (len(self._waiting) > MOST_WAITING or self._size > MOST_BYTES):
                dropped, number = self._waiting.popleft()
                self._size -= len(dropped)
                self._note_lost(lost, number)

    def _note_lost(self, lost: Callable[[int], Message], number: int) -> None:
        self._notice = lost
        is_first, self._lost = not self._lost, self._lost + number
        if is_first:
            logger.error("%s does not read its messages: the oldest are dropped.", self._name())

    def forget(self) -> None:
        """Drop all messages; it takes no lock, which a thread that a fork has left behind may hold."""
        self._lost = 0
        self._waiting = deque()

    def take(self) -> bytes:
        """Remove the next message and return it; b"" if there is none."""
        with self._lock:
            if self._lost and self._notice is not None:
                lost, self._lost = self._lost, 0
                return encode(self._notice(lost), [])
            if not self._waiting:
                return b""
            data, _ = self._waiting.popleft()
            self._size -= len(data)
            return data
