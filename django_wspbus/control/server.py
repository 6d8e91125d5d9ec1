"""The server of the control socket: one thread, which no client can block."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ..system.descriptors import OUT_OF_DESCRIPTORS, has_client
from .calls import send_last
from .peers import is_admitted, uid_of_peer
from .protocol import LARGEST_REQUEST, MISUSED, Error, Malformed, Request, decode_request

REQUEST_TIMEOUT = 2.0
"""Seconds for a client to send its request."""

ACCEPT_INTERVAL = 0.1
"""Seconds without accepting if the process has no free descriptor, or after an error of the system."""

MOST_CONNECTIONS = 200
"""Clients that have not sent their request yet. A further one replaces the oldest."""

MOST_ACCEPTS = 16
"""Connections to accept before the server looks at the other clients again."""


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
        self._listener = listener
        self._clients: dict[Client, None] = {}  # the oldest first
        self._resumes: float | None = None
        self._is_ending = False
        with contextlib.ExitStack() as stack:  # closes what is open if the process has no descriptor left
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._awake, self._waker = map(stack.enter_context, socket.socketpair())
            for sock in (self._awake, self._waker, listener):
                sock.setblocking(False)  # a client may disconnect before accept()
            self._selector.register(self._awake, selectors.EVENT_READ, lambda: self._awake.recv(4096))
            self._listen()
            # If the process runs out of descriptors, the server closes this to refuse or answer one client.
            self._reserve: int | None = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            stack.pop_all()

    def run(self) -> None:
        """Read requests until `end` is called. The listening socket stays open."""
        try:
            while not self._is_ending:
                try:
                    self._turn()
                except Exception:
                    self._failed()
                    time.sleep(ACCEPT_INTERVAL)  # an error that stays must not use up the processor
        finally:
            self._close()

    def end(self) -> None:
        """Make `run` return, and drop the clients that have not sent a request."""
        self._is_ending = True
        with contextlib.suppress(OSError):  # full, so that `run` wakes anyway; or closed
            self._waker.send(b".")

    def _close(self) -> None:
        for client in list(self._clients):
            self._drop(client)
        self._awake.close()
        self._waker.close()
        self._selector.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        now = time.monotonic()
        if self._resumes is not None and now >= self._resumes:
            self._listen()
        for client in list(self._clients):  # all have the same time, and the oldest come first
            if now < client.deadline:
                break
            self._refuse(client, f"no request came within {REQUEST_TIMEOUT:g} seconds")

    def _timeout(self) -> float | None:
        moments = [client.deadline for client in list(self._clients)[:1]]
        moments += [] if self._resumes is None else [self._resumes]
        return max(min(moments) - time.monotonic(), 0) if moments else None

    # New connections

    def _listen(self) -> None:
        self._resumes = None
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _pause(self) -> None:
        self._selector.unregister(self._listener)
        self._resumes = time.monotonic() + ACCEPT_INTERVAL

    def _accept(self) -> None:
        for _ in range(MOST_ACCEPTS):
            try:
                connection = self._listener.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                if error.errno in OUT_OF_DESCRIPTORS:
                    if not has_client(self._listener):
                        return
                    if self._make_room():
                        continue
                self._pause()
                return
            self._admit(connection)

    def _make_room(self) -> bool:
        """Close a descriptor; return False if the server has none to close."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            return True
        if self._clients:
            self._drop(next(iter(self._clients)))
            return True
        return False

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
            self._drop(next(iter(self._clients)))
        connection.setblocking(False)
        client = Client(connection, time.monotonic() + REQUEST_TIMEOUT)
        self._clients[client] = None
        self._selector.register(connection, selectors.EVENT_READ, partial(self._read, client))
        self._read(client)  # most clients have sent their request by now

    # One connection

    def _forget(self, client: Client) -> None:
        self._selector.unregister(client.socket)
        del self._clients[client]

    def _drop(self, client: Client) -> None:
        self._forget(client)
        client.socket.close()
        self._reopen_reserve()

    def _reopen_reserve(self) -> None:
        if self._reserve is None:
            with contextlib.suppress(OSError):  # no descriptor is free
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _refuse(self, client: Client, reason: str) -> None:
        self._forget(client)
        send_last(client.socket, Error(f"The request was not understood: {reason}.", MISUSED))
        self._reopen_reserve()

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
        self._reopen_reserve()
