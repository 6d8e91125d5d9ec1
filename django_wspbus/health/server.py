"""The HTTP server of the probes: one thread, which no single client can block."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from ..system.acceptor import Acceptor
from ..system.waker import Waker
from .http import Request, is_complete
from .report import Report

CLIENT_TIMEOUT = 2
"""Seconds for a client to send its request, and again to read the response."""

CLOSE_TIMEOUT = 1
"""Seconds for a client to close the connection after the response."""

LAST_REQUEST_TIMEOUT = 0.2
"""Seconds for a connected client to send its request once the server has begun to end."""

MOST_PROBE_CONNECTIONS = 200
"""Connections at the same time. A further one replaces the oldest that waits for no response."""


class Pending(Protocol):
    """A response that takes time. Its report exists by the ``deadline`` (`time.monotonic`) at the latest."""

    @property
    def deadline(self) -> float: ...

    def report(self) -> Report | None: ...


@dataclass(eq=False, slots=True)
class Client:
    """A connection: the client sends ``received``, waits for ``pending``, reads ``to_send``, and closes."""

    socket: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    request: Request | None = None
    pending: Pending | None = None
    to_send: bytes = b""
    events: int = 0

    @property
    def is_idle(self) -> bool:
        """True if the client waits for no response."""
        return self.pending is None and not self.to_send


class ProbeServer:
    """Answers probes on listening sockets, and closes the sockets at its end. Call `run` in a thread.

    ``answer(path)`` begins a report: call `wake` when it may be complete before its deadline.
    ``failed()`` is called in the ``except`` clause of a response that raises an error.
    """

    def __init__(
        self,
        listeners: Iterable[socket.socket],
        answer: Callable[[str], Pending],
        failed: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._failed = failed
        self._clients: dict[Client, None] = {}  # the oldest first
        self._listeners = list(listeners)
        self._ends: float | None = None
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._selector.register(self._waker, selectors.EVENT_READ, self._wake_up)
        self._acceptor = Acceptor(self._listeners, self._selector, self._admit, self._drop_oldest)

    def run(self) -> None:
        """Answer probes until `end` has been called and no client is left."""
        try:
            while self._ends is None or self._clients:
                for key, _ in self._selector.select(self._timeout()):
                    key.data()
                self._look_at_clients()
        finally:
            self.close()

    def wake(self) -> None:
        """Make `run` look for complete reports now."""
        self._waker.wake()

    def end(self, seconds: float) -> None:
        """Stop accepting. Clients get these seconds; without a request, only `LAST_REQUEST_TIMEOUT`."""
        self._ends = time.monotonic() + seconds
        self.wake()

    def close(self) -> None:
        for client in list(self._clients):
            self._forget(client)
        self._close_listeners()
        self._waker.close()
        self._selector.close()

    def _close_listeners(self) -> None:
        self._acceptor.close()
        for listener in self._listeners:
            listener.close()

    # The loop

    def _timeout(self) -> float | None:
        moments = [client.deadline for client in self._clients]
        moments += [] if self._acceptor.resumes is None else [self._acceptor.resumes]
        return max(min(moments) - time.monotonic(), 0) if moments else None

    def _wake_up(self) -> None:
        self._waker.clear()
        if self._ends is None:
            return
        self._close_listeners()
        deadline = time.monotonic() + LAST_REQUEST_TIMEOUT
        for client in self._clients:
            if client.pending is None:
                client.deadline = min(client.deadline, self._ends if client.to_send else deadline)

    def _look_at_clients(self) -> None:
        now = time.monotonic()
        self._acceptor.look(now)
        for client in list(self._clients):
            if client.pending is not None:
                self._try(client, partial(self._look_at, client, client.pending))
            elif now >= client.deadline:
                self._forget(client)

    def _look_at(self, client: Client, pending: Pending) -> None:
        if (report := pending.report()) is not None:
            client.pending = None
            self._report(client, report)

    # New connections

    def _admit(self, connection: socket.socket) -> None:
        if len(self._clients) >= MOST_PROBE_CONNECTIONS:
            self._drop_oldest()
        client = Client(connection, time.monotonic() + CLIENT_TIMEOUT)
        self._clients[client] = None
        self._try(client, partial(self._expect, client, selectors.EVENT_READ))
        self._proceed(client)  # most clients have sent their request by now

    def _drop_oldest(self) -> bool:
        """Close a connection, preferably one that waits for no response; return False if there is none."""
        oldest = next(iter(self._clients), None)
        dropped = next((client for client in self._clients if client.is_idle), oldest)
        if dropped is not None:
            self._forget(dropped)
        return dropped is not None

    # One connection

    def _forget(self, client: Client) -> None:
        self._expect(client, 0)
        del self._clients[client]
        client.socket.close()
        self._acceptor.refill()

    def _expect(self, client: Client, events: int) -> None:
        if events == client.events:
            return
        if not client.events:
            self._selector.register(client.socket, events, partial(self._proceed, client))
        elif not events:
            self._selector.unregister(client.socket)
        else:
            self._selector.modify(client.socket, events, partial(self._proceed, client))
        client.events = events

    def _proceed(self, client: Client) -> None:
        """Read from or write to a client without blocking."""
        if client in self._clients:  # else it was forgotten in this iteration of the loop
            self._try(client, partial(self._write if client.to_send else self._read, client))

    def _try(self, client: Client, step: Callable[[], None]) -> None:
        try:
            step()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # the client has disconnected
            self._forget(client)
        except Exception:
            self._failed()
            self._forget(client)

    def _read(self, client: Client) -> None:
        data = client.socket.recv(65536, socket.MSG_DONTWAIT)
        if client.request is not None:  # answered, so the rest of its input is discarded
            if not data:
                self._forget(client)
            return
        client.received += data
        if not client.received:
            self._forget(client)
        elif is_complete(client.received) or not data:
            self._respond(client, Request(bytes(client.received)))

    def _respond(self, client: Client, request: Request) -> None:
        client.request = request
        self._expect(client, 0)
        if request.asked is None:
            self._send(client)
            return
        pending = self._answer(request.asked)
        client.pending, client.deadline = pending, pending.deadline
        self._look_at(client, pending)

    def _report(self, client: Client, report: Report) -> None:
        assert client.request is not None
        client.request.answer(report)
        self._send(client)

    def _send(self, client: Client) -> None:
        assert client.request is not None
        client.to_send = client.request.output
        client.deadline = time.monotonic() + CLIENT_TIMEOUT
        if self._ends is not None:
            client.deadline = min(client.deadline, self._ends)
        self._expect(client, selectors.EVENT_WRITE)
        self._write(client)

    def _write(self, client: Client) -> None:
        while client.to_send:
            client.to_send = client.to_send[client.socket.send(client.to_send, socket.MSG_DONTWAIT) :]
        client.socket.shutdown(socket.SHUT_WR)  # close() with unread bytes would reset the connection
        client.deadline = min(client.deadline, time.monotonic() + CLOSE_TIMEOUT)
        self._expect(client, selectors.EVENT_READ)
