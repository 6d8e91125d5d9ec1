"""Clients with single connections to a server on any kind of socket."""

from __future__ import annotations

import contextlib
import socket
import time
from http.client import HTTPConnection, HTTPException
from typing import Any

from django_wspbus.servers.threaded.request_handler import KEEP_ALIVE, LAST_CHANCE
from tests.processes import DEADLINE


def connect(address: str, timeout: float = DEADLINE) -> socket.socket:
    """Return a connection to an address as BIND has it."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: Any = address.removeprefix("unix:")
    else:
        host, _, port = address.removeprefix("http://").rpartition(":")
        host = host.strip("[]")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        target = (host, int(port))
    sock.settimeout(timeout)
    try:
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


class Client(HTTPConnection):
    """One connection to an address as BIND has it.

    ``kept``: the seconds after an answer for which a server that stops waits for the next request.
    """

    def __init__(self, address: str, timeout: float = DEADLINE, kept: float = KEEP_ALIVE) -> None:
        super().__init__("localhost", timeout=timeout)
        self.address = address
        self.seconds = timeout
        self.kept = kept
        self.is_late = False
        """True if the last request came later than a server that stops has to wait for it."""
        self._since = 0.0  # when it began to connect, or had sent its last request

    def connect(self) -> None:
        self._since = time.monotonic()
        self.sock = connect(self.address, self.seconds)

    def request(self, *args: Any, **kwargs: Any) -> None:
        limit = LAST_CHANCE if self.sock is None else self.kept
        try:
            super().request(*args, **kwargs)
        finally:
            before, self._since = self._since, time.monotonic()
            self.is_late = self._since - before >= limit

    def ask(self, path: str, body: bytes | None = None, method: str | None = None) -> tuple[int, str]:
        """Return the status and the body of an answer. The connection stays open if the server allows it."""
        self.request(method or ("GET" if body is None else "POST"), path, body)
        response = self.getresponse()
        return response.status, response.read().decode()

    def ask_in_time(self, path: str) -> tuple[int, str]:
        """As `ask`, but again if the connection was closed and the request `is_late`."""
        while True:
            try:
                return self.ask(path)
            except (ConnectionResetError, BrokenPipeError):
                if not self.is_late:
                    raise
                self.close()


def ask(address: str, path: str = "/", body: bytes | None = None) -> tuple[int, str]:
    """Return the status and the body of an answer."""
    with contextlib.closing(Client(address)) as client:
        return client.ask(path, body)


def is_free(address: str) -> bool:
    """Return whether no process listens on an address."""
    try:
        connect(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def read_to_end(sock: socket.socket) -> bytes:
    """Return the bytes until the server closes the connection; an error if it resets the connection."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def hold_until_cut(address: str, path: str = "/held/never") -> None:
    """Send a request that the application never answers. Assert that the server cuts the connection."""
    with contextlib.closing(Client(address)) as client:
        try:
            answer = client.ask(path)
        except (OSError, EOFError, HTTPException):
            return
    raise AssertionError(f"It was answered: {answer}")
