"""The messages that wait for the engine."""

from __future__ import annotations

from collections import deque

from .envelope import Draft

MOST_WAITING = 10_000
MOST_BYTES = 64 * 2**20
"""Messages, and their bytes, that wait for the engine; beyond that, the oldest are dropped."""

MOST_IN_BATCH = 100
MOST_BYTES_IN_BATCH = 2**20
"""Messages, and their bytes, that are sent in one call."""

HEADER = 200
"""Bytes of a message without its arguments, about."""


class Outgoing:
    """A queue. The caller has a lock."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Draft, int]] = deque()
        self._size = 0
        self._is_dropping = False
        self._begins_to_drop = False
        self.dropped = 0
        """Messages that were dropped so far."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, draft: Draft, size: int) -> None:
        """Add a message of a number of bytes."""
        self._waiting.append((draft, size))
        self._size += size
        while len(self._waiting) > 1 and (len(self._waiting) > MOST_WAITING or self._size > MOST_BYTES):
            self._size -= self._waiting.popleft()[1]
            self.dropped += 1
            if not self._is_dropping:
                self._is_dropping = self._begins_to_drop = True

    def begins_to_drop(self) -> bool:
        """Return, once, that messages are dropped, until the queue has been empty."""
        begins, self._begins_to_drop = self._begins_to_drop, False
        return begins

    def batch(self) -> list[Draft]:
        """Return the messages to send next, which stay in the queue until they are `sent`."""
        found: list[Draft] = []
        size = 0
        for draft, own in self._waiting:
            size += own
            if found and (len(found) >= MOST_IN_BATCH or size > MOST_BYTES_IN_BATCH):
                break
            found.append(draft)
        return found

    def sent(self, batch: list[Draft]) -> None:
        """Remove the messages of a batch, some of which may have been dropped meanwhile."""
        sent = set(map(id, batch))
        while self._waiting and id(self._waiting[0][0]) in sent:
            self._size -= self._waiting.popleft()[1]
        if not self._waiting:
            self._is_dropping = False
