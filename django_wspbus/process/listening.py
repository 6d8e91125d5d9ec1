"""The link on which a process listens to the site, and over which it sends without waiting."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

from ..system.waker import Waker
from .encoding import Message, encode
from .messages import Link
from .outbox import Offered
from .reports import Unsent, as_message

logger = logging.getLogger("django_wspbus")


class Listening:
    """Calls ``hear(message)`` with each message that comes over a link, in a thread of its own.

    The thread also sends what the site does not take at once.
    """

    def __init__(self, link: Link, hear: Callable[[Message], object]) -> None:
        self.link = link
        self._hear = hear
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name="Site requests", daemon=True)
        self._thread.start()

    def offer(self, message: Message) -> None:
        """Send a message without waiting; while the site does not read, the oldest are dropped.

        OSError if the site has ended, TypeError and ValueError as `Link.post`.
        """
        self.link.offer([Offered(encode(message, []))], lambda count: as_message(Unsent(count)))
        if self.link.has_unsent:
            self._waker.wake()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, once the link is cut off."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def forget(self) -> None:
        """Close what belongs to the parent, in a forked process."""
        self._waker.close()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        # The site has ended, or an order has outlasted the link of this process, which then has no number.
        with suppress(OSError, ValueError):
            while True:
                poll.register(self.link, select.POLLIN | (select.POLLOUT if self.link.has_unsent else 0))
                if any(descriptor == self._waker.fileno() for descriptor, _ in poll.poll()):
                    self._waker.clear()
                if self.link.has_unsent:
                    self.link.flush()
                messages = self.link.receive()
                if messages is None:
                    return
                for message, _ in messages:
                    try:
                        self._hear(message)
                    except Exception:  # the orders that follow must be heard
                        logger.exception("An order of the site to process %s failed.", os.getpid())
