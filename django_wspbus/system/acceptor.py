"""New connections in the loop of a selector, also while the process has no free descriptor."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial

ACCEPT_INTERVAL = 0.1
"""Seconds without accepting if no descriptor can be freed, or after another error of the system."""

MOST_ACCEPTS = 16
"""Connections to accept before the loop looks at its other clients again."""


class Acceptor:
    """Accepts the connections of listening sockets. The loop calls the data of each key that is ready.

    ``accepted(connection)`` gets each connection. ``drop_oldest()`` closes a connection to free its
    descriptor, and returns False if there is none.
    """

    def __init__(
        self,
        listeners: Iterable[socket.socket],
        selector: selectors.BaseSelector,
        accepted: Callable[[socket.socket], None],
        drop_oldest: Callable[[], bool],
    ) -> None:
        self.resumes: float | None = None
        """The time of `time.monotonic` from which `look` listens again; None if it listens now."""
        self._listeners = list(listeners)
        self._selector = selector
        self._accepted = accepted
        self._drop_oldest = drop_oldest
        # If the process runs out of descriptors, this one is closed to serve one client at a time.
        self._reserve: int | None = os.open(os.devnull, os.O_RDONLY)
        self._listen()

    def look(self, now: float) -> None:
        """Listen again once a pause is over."""
        if self.resumes is not None and now >= self.resumes:
            self._listen()

    def refill(self) -> None:
        """Open the reserve again after a connection was closed."""
        if self._reserve is None and self._listeners:
            with contextlib.suppress(OSError):  # no descriptor is free
                self._reserve = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        """Accept no connection from now on. The listening sockets stay open."""
        if self.resumes is None:
            self._ignore()
        self._listeners, self.resumes = [], None
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _listen(self) -> None:
        self.resumes = None
        for listener in self._listeners:
            listener.setblocking(False)  # a client may disconnect before accept()
            self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))

    def _pause(self) -> None:
        self._ignore()
        self.resumes = time.monotonic() + ACCEPT_INTERVAL

    def _ignore(self) -> None:
        for listener in self._listeners:
            self._selector.unregister(listener)

    def _accept(self, listener: socket.socket) -> None:
        if listener not in self._listeners or self.resumes is not None:
            return  # an earlier event of this turn has closed it, or begun a pause
        for _ in range(MOST_ACCEPTS):
            try:
                connection = listener.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    if not _has_client(listener):
                        return
                    if self._make_room():
                        continue
                self._pause()
                return
            self._accepted(connection)

    def _make_room(self) -> bool:
        """Free a descriptor; return False if there is none to free."""
        if self._reserve is None:
            return self._drop_oldest()
        os.close(self._reserve)
        self._reserve = None
        return True


def _has_client(listener: socket.socket) -> bool:
    """Return whether a client waits to be accepted.

    Without a free descriptor the kernel fails to accept even if no client waits.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
