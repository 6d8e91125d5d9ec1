"""The server of the control socket: one thread, which no client can block."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ..system.acceptor import Acceptor
from ..system.waker import Waker
from .calls import send_last
from .peers import is_admitted, uid_of_peer
from .protocol import LARGEST_REQUEST, MISUSED, Error, Malformed, Request, decode_request

REQUEST_TIMEOUT = 2.0
"""Seconds for a client to send its request."""

ERROR_INTERVAL = 0.1
"""Seconds between an unexpected error and the next turn of the loop."""

MOST_CONNECTIONS = 200
"""Clients that have not sent their request yet. A further one replaces the oldest."""


@dataclass(eq=False, slots=True)
class Client:
    """A connection over which a request is to come until the deadline, a time of `time.monotonic`."""

    socket: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)


class ControlServer:
    """Reads the requests of admitted users on a listening socket. Call `run` in a thread.

    ``begin(request, connection)`` has to answer a request and to close the connection; it must not block.
    ``failed()`` is called in the ``except`` clause of an unexpected error, after which the server goes on.
    """

    def __init__(
        self,
        listener: socket.socket,
        begin: Callable[[Request, socket.socket], object],
        failed: Callable[[], object],
    ) -> None:
        self._begin = begin
        self._failed = failed
        self._clients: dict[Client, None] = {}  # the oldest first
        self._is_ending = False
        with contextlib.ExitStack() as stack:  # closes what is open if the process has no descriptor left
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._waker = Waker()
            stack.callback(self._waker.close)
            self._selector.register(self._waker, selectors.EVENT_READ, self._waker.clear)
            self._acceptor = Acceptor([listener], self._selector, self._admit, self._drop_oldest)
            stack.pop_all()

    def run(self) -> None:
        """Read requests until `end` is called. The listening socket stays open."""
        try:
            while not self._is_ending:
                try:
                    self._turn()
                except Exception:
                    self._failed()
                    time.sleep(ERROR_INTERVAL)  # an error that stays must not use up the processor
        finally:
            self._close()

    def end(self) -> None:
        """Make `run` return, and drop the clients that have not sent a request."""
        self._is_ending = True
        self._waker.wake()

    def _close(self) -> None:
        for client in list(self._clients):
            self._drop(client)
        self._acceptor.close()
        self._waker.close()
        self._selector.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        now = time.monotonic()
        self._acceptor.look(now)
        for client in list(self._clients):  # all have the same time, and the oldest come first
            if now < client.deadline:
                break
            self._refuse(client, f"no request came within {REQUEST_TIMEOUT:g} seconds")

    def _timeout(self) -> float | None:
        moments = [client.deadline for client in list(self._clients)[:1]]
        moments += [] if self._acceptor.resumes is None else [self._acceptor.resumes]
        return max(min(moments) - time.monotonic(), 0) if moments else None

    # New connections

    def _admit(self, connection: socket.socket) -> None:
        try:
            uid = uid_of_peer(connection)
        except OSError:  # it has disconnected
            connection.close()
            return
        if not is_admitted(uid):
            send_last(connection, Error(f"The user with the uid {uid} may not control this site.", MISUSED))
            return
        if len(self._clients) >= MOST_CONNECTIONS:
            self._drop_oldest()
        connection.setblocking(False)
        client = Client(connection, time.monotonic() + REQUEST_TIMEOUT)
        self._clients[client] = None
        self._selector.register(connection, selectors.EVENT_READ, partial(self._read, client))
        self._read(client)  # most clients have sent their request by now

    def _drop_oldest(self) -> bool:
        """Close a connection; return False if there is none."""
        oldest = next(iter(self._clients), None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    # One connection

    def _forget(self, client: Client) -> None:
        self._selector.unregister(client.socket)
        del self._clients[client]

    def _drop(self, client: Client) -> None:
        self._forget(client)
        client.socket.close()
        self._acceptor.refill()

    def _refuse(self, client: Client, reason: str) -> None:
        self._forget(client)
        send_last(client.socket, Error(f"The request was not understood: {reason}.", MISUSED))
        self._acceptor.refill()

    def _read(self, client: Client) -> None:
        if client not in self._clients:  # it was dropped in this turn
            return
        try:
            data = client.socket.recv(LARGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.received += data
        line, newline, _ = client.received.partition(b"\n")
        if newline:
            self._understand(client, bytes(line))
        elif len(client.received) >= LARGEST_REQUEST:
            self._refuse(client, f"it has more than {LARGEST_REQUEST:,} bytes")
        elif not data and client.received:
            self._refuse(client, "it does not end with a newline")
        elif not data:
            self._drop(client)

    def _understand(self, client: Client, line: bytes) -> None:
        try:
            request = decode_request(line)
        except Malformed as error:
            self._refuse(client, str(error))
            return
        self._forget(client)
        self._begin(request, client.socket)
        self._acceptor.refill()
