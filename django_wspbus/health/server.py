"""The server of the probes: one thread that waits for all of their connections and for none of them."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from .http import Request, is_complete
from .report import Report

TIME_TO_ASK = 2
"""Seconds that a client has to send its request, and again to take the answer."""

TIME_TO_CLOSE = 1
"""Seconds that a client has to close the connection once it is answered."""

LAST_CHANCE = 0.2
"""Seconds in which a client that has connected may still send its request when the probes end."""

PAUSE = 0.1
"""Seconds without a new connection where no descriptor is free, not even by closing one of ours."""

MOST_CONNECTIONS = 200
"""At once; then a new one takes the place of the oldest one that has nothing to wait for."""

MOST_ACCEPTS = 16
"""New connections between two looks at the others."""


class Pending(Protocol):
    """An answer that takes time: there is a report at the ``deadline`` (`time.monotonic`), or before."""

    @property
    def deadline(self) -> float: ...

    def report(self) -> Report | None: ...


@dataclass(eq=False, slots=True)
class Client:
    """A connection: it sends ``received``, waits for ``pending``, takes ``to_send``, and closes."""

    socket: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    request: Request | None = None
    pending: Pending | None = None
    to_send: bytes = b""
    events: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether the server owes it nothing at present."""
        return self.pending is None and not self.to_send


class ProbeServer:
    """Answers on listening sockets, which it closes in the end; ``run`` is for a thread.

    ``answer(path)`` begins to make a report: call `wake` when there may be one before its deadline.
    ``failed()`` is called in the ``except`` of an answer that cannot be made.
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
        self._resumes: float | None = None
        self._ends: float | None = None
        self._selector = selectors.DefaultSelector()
        # A process may run out of descriptors: with this one it still answers one probe at a time.
        self._reserve: int | None = os.open(os.devnull, os.O_RDONLY)
        self._awake, self._waker = socket.socketpair()
        for sock in (self._awake, self._waker, *self._listeners):
            sock.setblocking(False)  # a client may be gone before it is accepted
        self._selector.register(self._awake, selectors.EVENT_READ, self._wake_up)
        self._listen()

    def run(self) -> None:
        """Answer until `end` is called, and no client is left."""
        try:
            while self._ends is None or self._clients:
                for key, _ in self._selector.select(self._timeout()):
                    key.data()
                self._look_at_clients()
        finally:
            self.close()

    def wake(self) -> None:
        """Look at once whether there are reports."""
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed
            self._waker.send(b".")

    def end(self, seconds: float) -> None:
        """Accept no more; the clients that have connected have these seconds, and less if they do not ask."""
        self._ends = time.monotonic() + seconds
        self.wake()

    def close(self) -> None:
        for client in list(self._clients):
            self._forget(client)
        for sock in (self._awake, self._waker, *self._listeners):
            sock.close()
        self._selector.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    # Its turns

    def _timeout(self) -> float | None:
        moments = [client.deadline for client in self._clients]
        moments += [] if self._resumes is None else [self._resumes]
        return max(min(moments) - time.monotonic(), 0) if moments else None

    def _wake_up(self) -> None:
        self._awake.recv(4096)
        if self._ends is None:
            return
        for listener in self._listeners:
            if listener in self._selector.get_map():
                self._selector.unregister(listener)
            listener.close()
        self._listeners, self._resumes = [], None
        chance = time.monotonic() + LAST_CHANCE
        for client in self._clients:
            if client.pending is None:
                client.deadline = min(client.deadline, self._ends if client.to_send else chance)

    def _look_at_clients(self) -> None:
        now = time.monotonic()
        if self._resumes is not None and now >= self._resumes:
            self._listen()
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

    def _listen(self) -> None:
        self._resumes = None
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(MOST_ACCEPTS):
            try:
                connection = listener.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and not self._make_room():
                    self._pause()
                    return
                continue  # the client is gone, or there is room now
            if len(self._clients) >= MOST_CONNECTIONS:
                self._forget_oldest()
            client = Client(connection, time.monotonic() + TIME_TO_ASK)
            self._clients[client] = None
            self._try(client, partial(self._expect, client, selectors.EVENT_READ))
            self._proceed(client)  # most have sent their request by now

    def _make_room(self) -> bool:
        """Free a descriptor; return whether there was one to be had."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            return True
        if self._clients:
            self._forget_oldest()
            return True
        return False

    def _pause(self) -> None:
        for listener in self._listeners:
            self._selector.unregister(listener)
        self._resumes = time.monotonic() + PAUSE

    def _forget_oldest(self) -> None:
        oldest = next(iter(self._clients))
        self._forget(next((client for client in self._clients if client.is_idle), oldest))

    # One connection

    def _forget(self, client: Client) -> None:
        self._expect(client, 0)
        del self._clients[client]
        client.socket.close()
        if self._reserve is None:
            with contextlib.suppress(OSError):  # none is free
                self._reserve = os.open(os.devnull, os.O_RDONLY)

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
        """Read or write what is possible now."""
        if client in self._clients:  # else it was forgotten in this very turn
            self._try(client, partial(self._write if client.to_send else self._read, client))

    def _try(self, client: Client, step: Callable[[], None]) -> None:
        try:
            step()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # the client is gone
            self._forget(client)
        except Exception:
            self._failed()
            self._forget(client)

    def _read(self, client: Client) -> None:
        data = client.socket.recv(65536, socket.MSG_DONTWAIT)
        if client.request is not None:  # answered: what it still sends is discarded
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
        client.deadline = time.monotonic() + TIME_TO_ASK
        if self._ends is not None:
            client.deadline = min(client.deadline, self._ends)
        self._expect(client, selectors.EVENT_WRITE)
        self._write(client)

    def _write(self, client: Client) -> None:
        while client.to_send:
            client.to_send = client.to_send[client.socket.send(client.to_send, socket.MSG_DONTWAIT) :]
        client.socket.shutdown(socket.SHUT_WR)  # and not closed yet: unread bytes would reset the answer
        client.deadline = min(client.deadline, time.monotonic() + TIME_TO_CLOSE)
        self._expect(client, selectors.EVENT_READ)
