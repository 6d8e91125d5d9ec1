"""The messages of the fleet that wait to be published on the bus of this process."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from ..wspbus import Bus, ChannelFailures
from .database import close_all_connections, close_broken_connections
from .fleet import GAP

logger = logging.getLogger("django_wspbus")

MOST_WAITING = 10_000
"""Messages that wait for slow listeners; beyond that, the oldest are dropped."""

_beginning = threading.RLock()  # of the threads; a fork waits for it, so that its child can take it
os.register_at_fork(
    before=_beginning.acquire, after_in_parent=_beginning.release, after_in_child=_beginning.release
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for the listeners of this process."""

    sender: str
    """"host:pid" of the site that sent it."""
    channel: str
    args: list[Any]


class Inbox:
    """Publishes messages in the order in which they arrive, in a thread of its own.

    The thread starts with the first message. The failure of a listener is logged, and the next message
    follows. While the bus is STARTING the messages wait: a listener may need what a start listener makes.
    """

    def __init__(self, bus: Bus, most: int = MOST_WAITING) -> None:
        self._bus = bus
        self._most = most
        self._waiting: deque[Delivery] = deque()
        self._lock = threading.Lock()
        self._wakeups: SimpleQueue[None] = SimpleQueue()  # which wakes a thread faster than a Condition
        self._dropped = 0
        self._is_dropping = False
        self._pid = 0
        self._is_closed = False
        self.missed = 0
        """Messages that did not reach the listeners since the process began."""

    def put(self, delivery: Delivery) -> None:
        """Add a message; any thread may call this, and it never waits for a listener."""
        if self._ends:  # what the listeners use may be closed already
            return
        starts = self._bus.state is self._bus.states.STARTING  # a start listener may subscribe others
        if not starts and not self._bus.plan(delivery.channel):
            return
        if self._pid != os.getpid():
            with _beginning:
                if self._pid != os.getpid():  # else another thread was first
                    self._begin()
        with self._lock:
            begins_to_drop = len(self._waiting) >= self._most and self._drop_oldest()
            self._waiting.append(delivery)
            is_first = len(self._waiting) == 1
        if is_first:  # else the thread is at work
            self._wakeups.put(None)
        if begins_to_drop:  # without the lock, as a handler of the log may broadcast
            text = "More than %d messages of the fleet wait for slow listeners: the oldest are dropped."
            logger.error(text, self._most)

    def note_missed(self, sender: str, count: int) -> None:
        """Publish ``fleet.gap`` after the messages that wait: ``count`` messages of a site are lost."""
        self.missed += count
        self.put(Delivery(sender, GAP, [sender, count]))

    def close(self) -> None:
        """End the thread; what waits is not published."""
        self._is_closed = True
        self._wakeups.put(None)

    @property
    def _ends(self) -> bool:
        return self._is_closed or self._bus.exit_asked

    def _begin(self) -> None:
        """Start the thread, with no messages of the parent if this is a forked process."""
        self._waiting = deque()
        self._lock = threading.Lock()
        self._wakeups = SimpleQueue()
        self._dropped = 0
        self._is_dropping = False
        self._pid = os.getpid()
        threading.Thread(target=self._run, name="Fleet delivery", daemon=True).start()

    def _drop_oldest(self) -> bool:
        """Drop a message; return True if it is the first one since the queue was empty."""
        delivery = self._waiting.popleft()
        if delivery.channel == GAP:  # what it counts is among ``missed`` already
            self._dropped += delivery.args[1]
        else:
            self.missed += 1
            self._dropped += 1
        begins, self._is_dropping = not self._is_dropping, True
        return begins

    def _run(self) -> None:
        while not self._ends:
            self._wakeups.get()
            self._publish_waiting()
        close_all_connections()
        self._pid = 0

    def _publish_waiting(self) -> None:
        if self._bus.state is self._bus.states.STARTING:
            self._bus.wait_for(lambda: self._bus.state is not self._bus.states.STARTING)
        close_broken_connections()
        while self._waiting and not self._ends:
            self._publish_next()
        close_broken_connections()

    def _publish_next(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            delivery = self._waiting.popleft()
            if not self._waiting:
                self._is_dropping = False
        if dropped:
            self._publish(GAP, ["", dropped])
        self._publish(delivery.channel, delivery.args)

    def _publish(self, channel: str, args: list[Any]) -> None:
        try:
            self._bus.publish(channel, *args)
        except ChannelFailures:  # each failure is in the log
            close_broken_connections()
        except BaseException:  # SystemExit of a listener must not end the delivery
            logger.exception("A listener of %r raised an exit.", channel)
