"""Clients of every kind that stay with one worker while it is replaced, and that must not notice it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import threading
import time
from typing import BinaryIO

from tests.processes import DEADLINE

from .clients import Client, ask, connect

PAUSE = 0.02
"""Seconds between the requests of a client, which would otherwise keep a processor busy."""

DRIPPING = """
def drip(request, name):
    def parts():
        yield f"{os.getpid()} "
        note(f"{name} drips")
        while not (ROOT / name).exists():
            time.sleep(0.05)
            yield "."
        yield " ended"

    return StreamingHttpResponse(parts())


def whole(request):
    response = answer(request)
    response["Content-Length"] = len(response.content)
    return response


urlpatterns += [path("drip/<name>", drip), path("whole/", whole)]
"""
"""A stream that makes progress until the test has made the file of its name, and an answer with a length."""


class Steady:
    """A client in a thread. ``pid``: the worker that it began with, once `begun` is set."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.begun = threading.Event()
        self.pid = 0
        self.count = 0
        self._finishing = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()
        assert self.begun.wait(DEADLINE)

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self._error = error
        finally:
            self.begun.set()

    def work(self) -> None:
        raise NotImplementedError

    def note(self, body: str) -> None:
        """Record an answer that begins with the PID of its worker."""
        self.count += 1
        self.pid = self.pid or int(body.split()[0])
        self.begun.set()

    @property
    def finishes(self) -> bool:
        return self._finishing.is_set()

    def finish(self) -> None:
        """End the last request, and raise the error of the first one that failed."""
        self._finishing.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        assert self.count > 0


class OneShot(Steady):
    def work(self) -> None:
        while not self.finishes:
            status, body = ask(self.address)
            assert status == 200, body
            self.note(body)
            time.sleep(PAUSE)


class KeepAlive(Steady):
    def work(self) -> None:
        with contextlib.closing(Client(self.address)) as client:
            while not self.finishes:
                if client.sock is not None and select.select([client.sock], [], [], 0)[0]:
                    client.close()  # the server has closed it between two requests
                status, body = client.ask_in_time("/")
                assert status == 200, body
                self.note(body)
                time.sleep(PAUSE)


class Stream(Steady):
    """Reads a stream to its end, which the test causes."""

    def work(self) -> None:
        with contextlib.closing(connect(self.address)) as sock:
            sock.sendall(b"GET /drip/last HTTP/1.0\r\n\r\n")
            received = b""
            while chunk := sock.recv(4096):
                received += chunk
                head, _, body = received.partition(b"\r\n\r\n")
                if b" " in body:
                    self.note(body.decode())
        assert b" 200 " in head.splitlines()[0], received
        assert body.endswith(b" ended"), received


class Upload(Steady):
    """Sends a body bit by bit, and the rest of it at the end."""

    def work(self) -> None:
        body = os.urandom(500_000)
        rest = memoryview(body)
        with contextlib.closing(connect(self.address)) as sock:
            sock.sendall(b"POST /upload/ HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n")
            sock.sendall(b"Content-Length: %d\r\n\r\n" % len(body))
            while not self.finishes:
                sock.sendall(rest[:200])
                rest = rest[200:]
                self.count += 1
                if self.count == 3:
                    self.begun.set()
                time.sleep(0.05)
            sock.sendall(rest)
            received = b""
            while chunk := sock.recv(4096):
                received += chunk
        assert hashlib.sha256(body).hexdigest().encode() in received, received


class Pipelining(Steady):
    """Sends three requests at once. A server may close the connection after an answer, if that says so."""

    def work(self) -> None:
        while not self.finishes:
            with contextlib.closing(connect(self.address)) as sock, sock.makefile("rb") as reader:
                self._ask(sock, reader)

    def _ask(self, sock: socket.socket, reader: BinaryIO) -> None:
        while not self.finishes:
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(b"GET /whole/ HTTP/1.1\r\nHost: shop\r\n\r\n" * 3)
            for number in range(3):
                head = b""
                while line := reader.readline():
                    head += line
                    if line == b"\r\n":
                        break
                if not head and number == 0:
                    return  # closed between two requests
                assert head.startswith(b"HTTP/1.1 200"), head
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().splitlines()
                    if line.startswith(b"content-length")
                )
                self.note(reader.read(length).decode())
                if b"connection: close" in head.lower():
                    return
            time.sleep(PAUSE)


KINDS: dict[str, type[Steady]] = {
    "one-shot": OneShot,
    "keep-alive": KeepAlive,
    "stream": Stream,
    "upload": Upload,
    "pipelining": Pipelining,
}
