"""Messages that wait for a process to read them, and may be dropped if it does not."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .encoding import Message, encode

logger = logging.getLogger("django_wspbus")

MOST_WAITING = 10_000
MOST_BYTES = 16 * 2**20
"""Messages, and their bytes, that wait for one process; beyond that, the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Offered:
    """An encoded message that may be dropped, and the number of messages that are lost with it."""

    data: bytes
    count: int = 1
    """It is larger for a message that announces a loss."""


class Outbox:
    """A queue of encoded messages for one process. ``name()`` returns its name for the log."""

    def __init__(self, name: Callable[[], str]) -> None:
        self._name = name
        self._waiting: deque[Offered] = deque()
        self._size = 0
        self._lost = 0
        self._is_dropping = False
        self._notice: Callable[[int], Message] | None = None
        self._lock = threading.RLock()  # a signal handler may interrupt its owner

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Offered, lost: Callable[[int], Message]) -> None:
        """Add a message; ``lost(number)`` makes the one that takes the place of those that were dropped."""
        with self._lock:
            was_dropping = self._is_dropping
            self._waiting.append(message)
            self._size += len(message.data)
            while len(self._waiting) > 1 and (len(self._waiting) > MOST_WAITING or self._size > MOST_BYTES):
                dropped = self._waiting.popleft()
                self._size -= len(dropped.data)
                self._lost += dropped.count
                self._notice, self._is_dropping = lost, True
            begins_to_drop = self._is_dropping and not was_dropping
        if begins_to_drop:  # once, until all have been read
            logger.error("%s does not read its messages: the oldest are dropped.", self._name())

    def forget(self) -> None:
        """Drop all messages; it takes no lock, which a thread that a fork has left behind may hold."""
        self._lost = self._size = 0
        self._is_dropping = False
        self._waiting = deque()

    def take(self) -> bytes:
        """Remove the next message and return it; b"" if there is none."""
        with self._lock:
            if self._lost and self._notice is not None:
                lost, self._lost = self._lost, 0
                return encode(self._notice(lost), [])
            if not self._waiting:
                return b""
            data = self._waiting.popleft().data
            self._size -= len(data)
            if not self._waiting:
                self._is_dropping = False
            return data
