"""The answer to a request of the threaded server, and the body of the request."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref import simple_server
from wsgiref.headers import Headers

from django.core.servers.basehttp import ServerHandler

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

WITHOUT_BODY = ("1", "204", "304")
"""First characters of the statuses without a body. A client would take one for the next answer."""

DISCARD_TIMEOUT = 10.0
"""Seconds in which the rest of a body is read and discarded, so that the connection can stay open."""


class Body(io.RawIOBase):
    """The body of a request: ``left`` more bytes of its connection, and no byte of the next request."""

    def __init__(self, connection: io.BufferedReader, length: int) -> None:
        self._connection = connection
        self.left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        data = self._connection.read1(min(len(target), self.left)) if self.left else b""
        self.left -= len(data)
        target[: len(data)] = data
        return len(data)


class Connection(Protocol):
    """The part of a connection that its responses use."""

    close_connection: bool

    def is_last(self) -> bool: ...

    def discard(self, body: Body, timeout: float) -> None: ...


class ResponseHandler(ServerHandler):
    """Django's handler; a server that stops also tells the client to close the connection."""

    request_handler: Connection  # the name that Django gives it
    headers: Headers
    status: str | None

    def __init__(self, body: Body, *args: Any, **kwargs: Any) -> None:
        super().__init__(io.BufferedReader(body), *args, **kwargs)
        self.body = body
        self.is_complete = False
        self.started = self.progressed = time.monotonic()
        """Times of `time.monotonic`: of the request, and of the last chunk of the response."""

    def cleanup_headers(self) -> None:
        super().cleanup_headers()
        handler = self.request_handler
        if handler.close_connection or handler.is_last():
            self.headers["Connection"] = "close"
            handler.close_connection = True

    def write(self, data: bytes) -> None:
        self.progressed = time.monotonic()
        super().write(b"" if str(self.status).startswith(WITHOUT_BODY) else data)

    def close(self) -> None:
        """End a response that was given in full; read the part of the body that the application has not."""
        simple_server.ServerHandler.close(self)  # Django's reads all of it, into memory
        if self.body.left:
            self.request_handler.discard(self.body, DISCARD_TIMEOUT)
        self.is_complete = not self.body.left
