"""Late clients: they are still in the queue of a socket after its server has stopped."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Iterable

from .bound import Bound
from .queue import close_queue

ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 17\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    b"Shutting down...\n"
)
LONGEST_REQUEST = 65536
"""Bytes after which a request gets its answer, whether it is whole or not."""

TIMEOUT = 1.0
"""Seconds in which late clients have to send their requests and read their answers."""

EXTRA_TIME = 0.25
"""Seconds after `TIMEOUT` for clients that had to wait for a free descriptor."""


def turn_away(bounds: Iterable[Bound], within: float = TIMEOUT) -> None:
    """Answer 503 to all clients that wait, and close the sockets so that no connection is reset.

    ``within``: seconds that all clients together have to send their requests and read their answers. After
    that, clients that have sent a part of a request get the answer, and all connections are closed.
    """
    open_ones = list(bounds)
    deadline = time.monotonic() + within
    for bound in open_ones:
        close_queue(bound)
        bound.socket.setblocking(False)
    with _Desk(open_ones) as desk:
        desk.serve(deadline)
        for bound in open_ones:
            bound.close()


class _Desk:
    """Answers the clients of several queues at the same time, so that a slow client delays no other."""

    def __init__(self, bounds: list[Bound]) -> None:
        self._bounds = bounds
        self._clients: dict[int, _Client] = {}

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, *args: object) -> None:
        for client in self._clients.values():
            client.connection.close()

    def serve(self, deadline: float) -> None:
        """Answer until no client is left, or until the deadline and `EXTRA_TIME` after it."""
        while self._accept() or self._clients:
            left = deadline - time.monotonic()
            self._hear(max(left, 0))
            if left <= -EXTRA_TIME:
                return
            if left <= 0:  # the clients that are still in the queue need descriptors
                self.__exit__()
                self._clients.clear()

    def _accept(self) -> bool:
        """Accept all clients that wait; return whether there were any."""
        found = False
        for bound in self._bounds:
            with contextlib.suppress(OSError):  # the queue is empty, or no descriptor is free
                while True:
                    connection, _ = bound.socket.accept()
                    self._clients[connection.fileno()] = _Client(connection)
                    found = True
        return found

    def _hear(self, seconds: float) -> None:
        poll = select.poll()
        for descriptor in (*self._clients, *(bound.socket.fileno() for bound in self._bounds)):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(math.ceil(seconds * 1000)):
            client = self._clients.get(descriptor)
            if client is not None and not client.hear():
                del self._clients[descriptor]
                client.connection.close()


class _Client:
    """The connection of a late client, which sends its request, reads the answer and closes."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._head = b""
        self._is_answered = False

    def hear(self) -> bool:
        """Read what the client has sent, and answer a request; return False once the client has closed."""
        try:
            data = self.connection.recv(LONGEST_REQUEST)
            if not self._is_answered:
                self._head += data
                is_whole = b"\r\n\r\n" in self._head or len(self._head) >= LONGEST_REQUEST
                if self._head and (is_whole or not data):
                    self._answer()
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(data)  # a close with unread data would reset the connection

    def _answer(self) -> None:
        self._is_answered = True
        self._head = b""
        self.connection.sendall(ANSWER)  # the buffer of a new connection has room for it
        self.connection.shutdown(socket.SHUT_WR)
