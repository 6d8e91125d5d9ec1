"""A connection of the error page: a request, its answer, and a close that resets no client."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from enum import Enum, auto

from .request import Malformed, Request, parse

TIME_TO_ASK = 10.0
"""Seconds in which a client has to send the head of a request, once begun, and to read the answer."""

TIME_FOR_BODY = 1.0
"""Seconds in which a client has to send the body of a request before the answer, and again after it."""

MOST_BODY = 1 << 20
"""Bytes of a body that are read before the answer."""


class States(Enum):
    IDLE = auto()  # no byte of a request has come
    HEAD = auto()
    BODY = auto()
    WRITING = auto()
    HELD = auto()  # the answer has begun, and ends when the program does
    LINGERING = auto()  # answered; a close before the client's would reset the connection if it still sends
    CLOSED = auto()  # the program may close the socket


class Connection:
    """A connection that never blocks.

    ``answer`` returns the bytes of the answer to a request, with a status. For 400 and 408 the request is
    None. ``holds`` returns whether the answer to a request stays open.
    """

    def __init__(
        self,
        sock: socket.socket,
        answer: Callable[[Request | None, int], bytes],
        holds: Callable[[Request], bool],
    ) -> None:
        self.socket = sock
        self.state = States.IDLE
        self.opened = time.monotonic()
        self.deadline: float | None = None
        self._answer = answer
        self._holds = holds
        self._request: Request | None = None
        self._received = bytearray()
        self._to_send = memoryview(b"")
        self._has_all = False

    @property
    def events(self) -> int:
        """The events of the socket to wait for."""
        return selectors.EVENT_WRITE if self.state is States.WRITING else selectors.EVENT_READ

    @property
    def is_done(self) -> bool:
        """True if a close at this moment loses no data."""
        return self.state is States.CLOSED or (self.state is States.LINGERING and self._has_all)

    def proceed(self, now: float) -> None:
        """Read or write as much as the socket allows; ``now``: the time. CLOSED once the client has gone."""
        try:
            if self.state is States.WRITING:
                self._write(now)
            else:
                self._read(now)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.state = States.CLOSED

    def expire(self, now: float) -> None:
        """Answer without the bytes that have not come by the deadline, or give the connection up."""
        if self.state is States.HEAD:
            self._begin(now, self._answer(None, 408))
        elif self.state is States.BODY:
            self._begin(now, self._answer(self._request, 500))
        else:
            self.state = States.CLOSED

    def end(self, last: bytes = b"") -> None:
        """End the connection, after the last bytes of an answer that stayed open."""
        try:
            if last and self.state is States.HELD:
                self.socket.send(last, socket.MSG_DONTWAIT)
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.state = States.CLOSED

    def _read(self, now: float) -> None:
        data = self.socket.recv(65536, socket.MSG_DONTWAIT)
        if self.state in (States.IDLE, States.HEAD) and data:
            if self.state is States.IDLE:
                self.state, self.deadline = States.HEAD, now + TIME_TO_ASK
            self._received += data
            self._read_head(now)
        elif self.state is States.BODY:
            self._received += data
            self._read_body(now, is_last=not data)
        elif self.state is States.LINGERING and data:
            self._received += data
            if len(self._received) > 2 * MOST_BODY:
                self.state = States.CLOSED
        elif not data:
            self.state = States.CLOSED

    def _read_head(self, now: float) -> None:
        try:
            parsed = parse(self._received)
        except Malformed:
            self._begin(now, self._answer(None, 400))
            return
        if parsed is not None:
            self._request, length = parsed
            del self._received[:length]
            self.state, self.deadline = States.BODY, now + TIME_FOR_BODY
            self._read_body(now, is_last=False)

    def _read_body(self, now: float, is_last: bool) -> None:
        assert self._request is not None
        self._has_all = is_last or self._request.has_body(self._received)
        if self._has_all or len(self._received) >= MOST_BODY:
            self._begin(now, self._answer(self._request, 500))

    def _begin(self, now: float, answer: bytes) -> None:
        self._to_send = memoryview(answer)
        self.state, self.deadline = States.WRITING, now + TIME_TO_ASK
        self.proceed(now)

    def _write(self, now: float) -> None:
        while self._to_send:
            self._to_send = self._to_send[self.socket.send(self._to_send, socket.MSG_DONTWAIT) :]
        if self._request is not None and self._holds(self._request):
            self.state, self.deadline = States.HELD, None
        else:
            self.state, self.deadline = States.LINGERING, now + TIME_FOR_BODY
            self.socket.shutdown(socket.SHUT_WR)
