"""The other processes of a member, and the way of messages to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..process.encoding import encode
from ..process.outbox import Offered
from ..process.worker_orders import Deliver, Order, as_message
from .base import MemberProcess

MOST_TOGETHER = 2**13
"""Bytes of messages that are sent in one call: each call wakes a process."""


class Processes(Protocol):
    """The other processes of a member. No method waits."""

    def offer(self, orders: Sequence[Offered]) -> None:
        """Send orders to each of them."""

    def serving(self) -> list[MemberProcess]:
        """Return those that answer an ask."""

    def order(self, pid: int, order: Order) -> bool:
        """Give an order to one of them; return False if it has ended."""


class NoProcesses:
    """A member of one process has no others."""

    def offer(self, orders: Sequence[Offered]) -> None:
        pass

    def serving(self) -> list[MemberProcess]:
        return []

    def order(self, pid: int, order: Order) -> bool:
        return False


class Spreading:
    """Sends messages that have come together in one call to each process. The caller has a lock."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._waiting: list[Offered] = []
        self._size = 0

    def put(self, delivery: Deliver, count: int = 1) -> int:
        """Send a message with the next `flush`, or before; return its size in bytes.

        ``count``: the number of messages that are lost with it.
        """
        data = encode(as_message(delivery), [])
        self._waiting.append(Offered(data, count))
        self._size += len(data)
        if self._size >= MOST_TOGETHER:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        if waiting:
            self._processes.offer(waiting)
