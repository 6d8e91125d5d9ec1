"""One connection of the error page: a request, its answer, and a goodbye that resets nobody."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from enum import Enum, auto

from .request import Malformed, Request, parse

TIME_TO_ASK = 10.0
"""Seconds for a request's head to come in full once it has begun, and for an answer to be taken."""

TIME_FOR_BODY = 1.0
"""Seconds for the rest of a request, before the answer, and again after it."""

MOST_BODY = 1 << 20
"""Bytes that are read of a request after its head."""


class States(Enum):
    IDLE = auto()  # not a byte of a request has been read
    HEAD = auto()
    BODY = auto()
    WRITING = auto()
    HELD = auto()  # the answer has begun, and ends when the program does
    LINGERING = auto()  # answered: closed by the client, lest what it still sends is answered with a reset
    CLOSED = auto()  # for the owner to close


class Connection:
    """A connection that never blocks.

    ``answer`` makes the bytes of an answer of a request and a status, 400 and 408 being without a request;
    ``holds`` says whether the answer to a request stays open.
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
        """What to wait for."""
        return selectors.EVENT_WRITE if self.state is States.WRITING else selectors.EVENT_READ

    @property
    def is_done(self) -> bool:
        """Whether closing it now would lose nothing."""
        return self.state is States.CLOSED or (self.state is States.LINGERING and self._has_all)

    def proceed(self, now: float) -> None:
        """Read or write what can be at the time ``now``; it is closed once its client is gone."""
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
        """Do without what has not come by the deadline."""
        if self.state is States.HEAD:
            self._begin(now, self._answer(None, 408))
        elif self.state is States.BODY:
            self._begin(now, self._answer(self._request, 500))
        else:
            self.state = States.CLOSED

    def end(self, last: bytes = b"") -> None:
        """Hang up, after some last bytes of an answer that was held open."""
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
