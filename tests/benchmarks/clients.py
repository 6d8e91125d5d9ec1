"""Clients that send requests without a break, in their own process, and record the outcome of each request.

If a connection is closed before the next request, the client opens a new one, as browsers do. If a request on
a kept connection gets no answer, the client has lost HTTP's keep-alive race.
"""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Self

USUAL = {"/": 0.0, "/slow": 1.0}
"""The pages, and the seconds that each takes to answer on an idle server."""

CLIENTS = [*[("/", True)] * 4, *[("/", False)] * 2, ("/slow", True), ("/slow", False)]
"""The page that each client asks for, and whether it keeps its connection."""

THINK = 0.005
TIMEOUT = 10.0
HEARTBEAT = 0.1


class Request(NamedTuple):
    """One request. Its times are of ``time.monotonic()``, which is the same in all processes."""

    path: str
    began: float
    seconds: float
    outcome: str
    """The status, or the kind of failure."""
    version: str

    @property
    def ended(self) -> float:
        return self.began + self.seconds

    @property
    def delay(self) -> float:
        return self.seconds - USUAL[self.path]


class Client:
    """Requests one page again and again, and returns the outcome of each request."""

    def __init__(self, port: int, path: str, keep_alive: bool) -> None:
        self.port, self.path, self.keep_alive = port, path, keep_alive
        connection = "keep-alive" if keep_alive else "close"
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"
        self.request = head.encode()
        self.received = b""
        self.socket: socket.socket | None = None

    def ask(self) -> Request:
        began = time.monotonic()
        self.received = version = b""
        kept = self.is_open()
        try:
            if self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(self.request)
            outcome, version = self.answer()
        except (OSError, EOFError) as error:
            outcome = self.failure(error, kept)
            self.close()
        return Request(self.path, began, time.monotonic() - began, outcome, version.decode(errors="replace"))

    def is_open(self) -> bool:
        if self.socket is not None and select.select([self.socket], [], [], 0)[0]:
            self.close()  # readable without a request, so the server has closed it
        return self.socket is not None

    def answer(self) -> tuple[str, bytes]:
        while b"\r\n\r\n" not in self.received:
            self.receive()
        head = self.received.partition(b"\r\n\r\n")[0].lower()
        length = re.search(rb"\ncontent-length: *(\d+)", head)
        end = len(head) + 4 + (int(length[1]) if length else 0)
        while len(self.received) < end:
            self.receive()
        if not length or not self.keep_alive or b"\nconnection: close" in head:
            self.close()
        return head[9:12].decode(), self.received[len(head) + 4 : end]

    def receive(self) -> None:
        assert self.socket is not None
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.received += data

    def failure(self, error: Exception, kept: bool) -> str:
        match error:
            case ConnectionRefusedError():
                return "refused"
            case TimeoutError():
                return "timeout"
        if self.received:
            return "cut off"
        if kept:
            return "keep-alive race"
        return "empty answer" if isinstance(error, EOFError) else "reset"

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


class Load:
    """The clients' process, as a context manager. `finish` returns their requests."""

    def __init__(self, port: int) -> None:
        self.answered: dict[str, float] = {}
        """Version -> time of its last answer."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def follow(self, deadline: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Update ``answered`` until the deadline or until a condition holds; return whether it holds."""
        assert self.process.stdout is not None
        while time.monotonic() < deadline:
            self.answered = json.loads(self.process.stdout.readline())
            if until():
                return True
        return False

    def finish(self) -> list[Request]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        *_, last = self.process.stdout
        self.process.stdin = None  # communicate() would flush the closed pipe
        return [Request(*request) for request in json.loads(last)]


def main(port: int) -> None:
    stopping = threading.Event()
    requests: list[Request] = []
    answered: dict[str, float] = {}

    def run(client: Client) -> None:
        while not stopping.wait(THINK):
            request = client.ask()
            requests.append(request)
            if request.outcome == "200":
                answered[request.version] = request.ended

    threads = [threading.Thread(target=run, args=[Client(port, *kind)], daemon=True) for kind in CLIENTS]
    for thread in threads:
        thread.start()
    while not select.select([sys.stdin], [], [], HEARTBEAT)[0]:
        print(json.dumps(answered.copy()), flush=True)
    stopping.set()
    deadline = time.monotonic() + TIMEOUT + 1
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    print(json.dumps(requests.copy()), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
