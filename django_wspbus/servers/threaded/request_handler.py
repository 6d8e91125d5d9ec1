"""A connection of the threaded server: its requests, one after the other, and their answers."""

from __future__ import annotations

import contextlib
import io
import re
import select
import socket
import time
from http import HTTPStatus
from typing import Any, Protocol

from django.core.servers.basehttp import WSGIRequestHandler

from .request_head import LONGEST_LINE, MOST_LINES, find_fault
from .response_handler import Body, ResponseHandler

UNREAD = "a request that has not come in full"

TLS = b"\x16\x03"
"""The first bytes of a client that speaks HTTPS: a handshake, of SSL 3 or any TLS."""

ABSOLUTE = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
"""The target of a request as clients send it to a proxy: the host, and the rest."""

LAST_CHANCE = 0.1
"""Seconds after its connection in which a client may send its first request, although the server stops."""

KEEP_ALIVE = 2.0
"""Seconds after an answer in which its client may send the next request, although the server stops."""

MOST_UNREAD = 16 * 2**20
"""Bytes of a body that are read and discarded at most, so that the connection can stay open."""


class Server(Protocol):
    """The part of a server that its connections use."""

    stop: socket.socket
    keep_alive: float
    one_thread: Any

    def note_request(self, connection: socket.socket, request: str) -> None: ...

    def run(self, connection: socket.socket, response: ResponseHandler) -> None: ...


class RequestHandler(WSGIRequestHandler):
    """Django's handler, which between two requests also waits for its server to stop."""

    server: Server  # type: ignore[assignment]  # Django's stubs say its own
    rfile: io.BufferedReader  # type: ignore[assignment]  # Django's stubs say BytesIO
    connection: socket.socket  # type: ignore[assignment]  # Django's stubs say a request

    default_request_version = "HTTP/1.0"  # an answer to HTTP/0.9 has no status

    _until = 0.0
    """The time of `time.monotonic` at which a server that stops closes this connection, if it is idle."""

    def address_string(self) -> str:
        return self.client_address[0] or "unix"

    def handle(self) -> None:
        # Django's ends with a shutdown, as the server does after it.
        self._until = time.monotonic() + LAST_CHANCE
        self.close_connection = True
        self.handle_one_request()
        while not self.close_connection:
            self.handle_one_request()

    def handle_one_request(self) -> None:
        if not self._await_request():
            self.close_connection = True
            return
        self.server.note_request(self.connection, UNREAD)
        if self.rfile.peek(1).startswith(TLS):
            self._refuse_tls()
            return
        self.raw_requestline = self.rfile.readline(LONGEST_LINE + 1)
        if self.raw_requestline in (b"\r\n", b"\n"):  # some clients end a body with one more (RFC 9112, 2.2)
            self.raw_requestline = self.rfile.readline(LONGEST_LINE + 1)
        if len(self.raw_requestline) > LONGEST_LINE:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self.parse_request():  # else the client has been answered
            self.server.note_request(self.connection, f"{self.command} {self.path}")
            self._respond()
            self._until = time.monotonic() + self.server.keep_alive

    def parse_request(self) -> bool:
        """Parse a head only if it is whole, and leaves no doubt about where its request ends."""
        lines = self._read_fields()
        if lines is None:
            self.close_connection = True
            return False
        fault = find_fault(self.raw_requestline, lines[:-1])
        if fault is not None:
            self._refuse(*fault)
            return False
        connection, self.rfile = self.rfile, io.BytesIO(b"".join(lines))  # type: ignore[assignment]
        try:
            is_valid = super().parse_request()
        finally:
            self.rfile = connection
        if not is_valid:
            self._linger()
        elif self.request_version < "HTTP/1.1":  # its clients expect a header if the connection stays
            self.close_connection = True
        if is_valid and (absolute := ABSOLUTE.match(self.path)):
            del self.headers["Host"]
            self.headers["Host"], self.path = absolute[1], "/" + absolute[2].lstrip("/")
        return is_valid

    def _read_fields(self) -> list[bytes] | None:
        """Return the lines up to the empty one, None if the head breaks off.

        Of a head that is too large the last line is one too many, or too long.
        """
        lines: list[bytes] = []
        while len(lines) <= MOST_LINES:
            line = self.rfile.readline(LONGEST_LINE + 1)
            lines.append(line)
            if line in (b"\r\n", b"\n") or len(line) > LONGEST_LINE:
                break
            if not line.endswith(b"\n"):
                return None
        return lines

    def _refuse(self, status: HTTPStatus, reason: str | None = None) -> None:
        """Answer a request that is not understood, and close the connection: its end is not known."""
        self.requestline = self.raw_requestline.decode("latin-1").rstrip("\r\n")[:200]
        self.request_version = self.command = ""
        self.send_error(status, reason)
        self._linger()

    def _linger(self) -> None:
        """Read on after an answer that ends a connection: closed at once, it might be lost to its client."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        self.discard(Body(self.rfile, MOST_UNREAD), KEEP_ALIVE)

    def discard(self, body: Body, timeout: float) -> None:
        """Read and drop a body, for ``timeout`` seconds and `MOST_UNREAD` bytes at most."""
        deadline = time.monotonic() + timeout
        enough = body.left - MOST_UNREAD
        with contextlib.suppress(OSError):  # the client is gone, or the time is over
            while body.left > max(enough, 0) and (seconds := deadline - time.monotonic()) > 0:
                self.connection.settimeout(seconds)
                if not body.read(65536):
                    break
            self.connection.settimeout(None)

    def _respond(self) -> None:
        environ = self.get_environ()
        response = ResponseHandler(
            Body(self.rfile, int(environ.get("CONTENT_LENGTH") or 0)),
            self.wfile,
            self.get_stderr(),
            environ,
            multithread=self.server.one_thread is None,
        )
        response.request_handler = self
        self.server.run(self.connection, response)
        if not response.is_complete:  # the client must not take the next answer for the rest of this one
            self.close_connection = True

    def _refuse_tls(self) -> None:
        """Answer a client that speaks HTTPS at once, as it will never send the end of a line."""
        self.requestline = self.rfile.read1(LONGEST_LINE).decode("latin-1")
        self.request_version, self.command = "HTTP/1.0", ""
        self.close_connection = True
        self.log_request(HTTPStatus.BAD_REQUEST)  # where Django logs the reason
        self.send_response_only(HTTPStatus.BAD_REQUEST)
        self.end_headers()

    def _await_request(self) -> bool:
        """Wait for a request to begin; return False if the client closes, or the server stops, first."""
        if self.has_received():
            return True
        if not _is_readable(self.connection, self.server.stop):
            seconds = max(self._until - time.monotonic(), 0)
            if not _is_readable(self.connection, timeout=seconds):
                return False
        try:
            return bool(self.rfile.peek(1))
        except OSError:  # reset by the client
            return False

    def has_received(self) -> bool:
        """Return whether unread bytes are here: a client may send its next request before the answer."""
        self.connection.setblocking(False)
        try:
            return bool(self.rfile.peek(1))
        except OSError:
            return False
        finally:
            self.connection.setblocking(True)

    def is_last(self) -> bool:
        """Return True if no further request of this connection will be answered."""
        return _is_readable(self.server.stop, timeout=0) and not self.has_received()


def _is_readable(
    sock: socket.socket, or_else: socket.socket | None = None, timeout: float | None = None
) -> bool:
    """Wait until a socket is readable, or the other is; return whether the first is."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if or_else is not None:
        poll.register(or_else, select.POLLIN)
    found = poll.poll(None if timeout is None else timeout * 1000)
    return sock.fileno() in dict(found)
