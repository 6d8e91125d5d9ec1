"""The thread of the site that waits for messages of other processes."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .messages import BrokenLink, Link, Message
from .outbox import Offered

logger = logging.getLogger("django_wspbus")


class _Watched(NamedTuple):
    readable: Callable[[], None]
    link: Link | None


class Switchboard:
    """A thread that calls functions when a descriptor becomes readable, or at a given time.

    It also sends the rest of a message once the peer of a `Link` reads again.
    """

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serials = itertools.count()
        self._lock = threading.Lock()
        self._pair: tuple[socket.socket, socket.socket] | None = None  # wakes the thread
        self._thread: threading.Thread | None = None
        self._pausing = False
        self._is_paused = False

    def watch(self, descriptor: int, readable: Callable[[], None], link: Link | None = None) -> None:
        """Call a function whenever a descriptor is readable; ``link``: the link of the descriptor, if any."""
        with self._lock:
            self._watched[descriptor] = _Watched(readable, link)
        self._ensure_running()

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor; its function is not called again, but may still be running."""
        with self._lock:
            self._watched.pop(descriptor, None)
        self._wake()

    def post(self, link: Link, message: Message, descriptors: Iterable[int] = ()) -> None:
        """Send a message over a watched link without waiting for the peer; see `Link.post`."""
        link.post(message, descriptors)
        if link.has_unsent:
            self._wake()

    def offer(self, link: Link, messages: Sequence[Offered], lost: Callable[[int], Message]) -> None:
        """Send messages over a watched link, unless its peer does not read; see `Link.offer`."""
        link.offer(messages, lost)
        if link.has_unsent:
            self._wake()

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._serials), function))
        self._ensure_running()

    def resume(self) -> None:
        """Start the thread again after `pause`."""
        self._is_paused = False
        self._ensure_running()

    def _ensure_running(self) -> None:
        """Start the thread unless it runs, or is paused."""
        with self._lock:
            if self._is_paused:
                return
            if self._pair is None:
                self._pair = socket.socketpair()
                self._pair[1].setblocking(False)
            if self._thread is None:
                self._pausing = False
                self._thread = threading.Thread(target=self._run, name="Site switchboard", daemon=True)
                self._thread.start()
        self._wake()

    def pause(self) -> None:
        """End the thread. Messages and calls that come from now on wait until `resume`."""
        with self._lock:
            self._is_paused = self._pausing = True
            thread = self._thread
        self._wake()
        if thread is not None:
            thread.join()
            self._thread = None

    def close(self) -> None:
        self.pause()
        if self._pair is not None:
            for sock in self._pair:
                sock.close()
            self._pair = None
        self._is_paused = False

    def _wake(self) -> None:
        if self._pair is not None:
            with contextlib.suppress(OSError):  # the buffer is full, so the thread wakes anyway
                self._pair[1].send(b".")

    def _run(self) -> None:
        assert self._pair is not None
        reader = self._pair[0]
        while not self._pausing:
            for call in self._due():
                self._call(call)
            poll = select.poll()
            poll.register(reader, select.POLLIN)
            with self._lock:
                for descriptor, (_, link) in self._watched.items():
                    has_unsent = link is not None and link.has_unsent
                    poll.register(descriptor, select.POLLIN | (select.POLLOUT if has_unsent else 0))
                pause = self._timers[0][0] - time.monotonic() if self._timers else None
            for descriptor, event in poll.poll(None if pause is None else max(math.ceil(pause * 1000), 0)):
                if descriptor == reader.fileno():
                    os.read(descriptor, 4096)
                else:
                    self._attend(descriptor, event)

    def _attend(self, descriptor: int, event: int) -> None:
        with self._lock:
            watched = self._watched.get(descriptor)
        if watched is not None and watched.link is not None and event & select.POLLOUT:
            with contextlib.suppress(OSError):  # the peer has ended, which the next read reports
                watched.link.flush()
        if watched is not None and event & ~select.POLLOUT:
            self._call(watched.readable)

    def _due(self) -> list[Callable[[], None]]:
        due = []
        with self._lock:
            while self._timers and self._timers[0][0] <= time.monotonic():
                due.append(heapq.heappop(self._timers)[2])
        return due

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BrokenLink as error:
            logger.error("%s", error)
        except Exception:  # an error in one message must not stop the messages of other children
            logger.exception("A message of a server's process was lost, because its handling failed.")
