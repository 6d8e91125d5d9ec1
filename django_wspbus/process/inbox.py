"""The messages of the fleet that wait to be published on the bus of this process."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..wspbus import Bus, ChannelFailures
from .fleet import GAP

logger = logging.getLogger("django_wspbus")

MOST_WAITING = 10_000
"""Messages that wait for slow listeners; beyond that, the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for the listeners of this process."""

    sender: str
    """"host:pid" of the process that sent it."""
    channel: str
    args: list[Any]


class Inbox:
    """Publishes messages in the order in which they arrive, in a thread of its own.

    The thread starts with the first message. A listener that fails costs the others nothing.
    """

    def __init__(
        self, bus: Bus, most: int = MOST_WAITING, connections: Callable[[], object] = lambda: None
    ) -> None:
        self._bus = bus
        self._most = most
        self._close_connections = connections
        self._waiting: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self.missed = 0
        """Messages that were dropped here since the process began."""
        os.register_at_fork(after_in_child=self._forget)

    def put(self, delivery: Delivery) -> None:
        """Add a message; any thread may call this, and it never waits for a listener."""
        with self._changed:
            if self._is_closed:
                return
            if len(self._waiting) >= self._most:
                self._waiting.popleft()
                self._note_dropped()
            self._waiting.append(delivery)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="Fleet delivery", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, timeout: float = 0) -> None:
        """Take no more messages; wait for the one that is being published."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _note_dropped(self) -> None:
        self.missed += 1
        if not self._dropped:
            logger.error(
                "More than %d messages of the fleet wait for slow listeners: the oldest are dropped.",
                self._most,
            )
        self._dropped += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                dropped, self._dropped = self._dropped, 0
                delivery = self._waiting.popleft()
            if dropped:
                self._publish(GAP, [delivery.sender, dropped])
            self._publish(delivery.channel, delivery.args)

    def _publish(self, channel: str, args: list[Any]) -> None:
        self._close_connections()
        try:
            self._bus.publish(channel, *args)
        except ChannelFailures:  # each failure is in the log
            pass
        except BaseException:  # SystemExit of a listener must not end the delivery
            logger.exception("A listener of %r raised an exit.", channel)
        finally:
            self._close_connections()

    def _forget(self) -> None:
        """Start with nothing in a forked process, which has no messages of its own."""
        self._waiting.clear()
        self._changed = threading.Condition()
        self._thread = None
        self._dropped = 0
