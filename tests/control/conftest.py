"""A server of the control socket with actions of the test, and the requests of clients."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from django_wspbus.control import address, server
from django_wspbus.control.calls import Action, Actions, Calls
from django_wspbus.control.server import ControlServer

from ..processes import DEADLINE


class Served:
    """A server in a thread. ``failures``: the errors that it has reported."""

    def __init__(self, table: dict[str, Action], pid: int) -> None:
        self.failures: list[str] = []
        self.socket, self.name = address.listen(pid)
        self.calls = Calls(Actions(table), self.failures.append)
        self.server = ControlServer(self.socket, self.calls.begin, lambda: self.failures.append("server"))
        self.thread = threading.Thread(target=self.server.run, name="Served")

    def __enter__(self) -> Served:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.end()
        self.thread.join(DEADLINE)
        self.socket.close()
        assert not self.thread.is_alive()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.name.address)  # without a timeout, it waits while the queue is full
        client.settimeout(DEADLINE)
        return client

    def exchange(self, data: bytes) -> list[Any]:
        """Send bytes, and return the replies."""
        with self.connect() as client:
            client.sendall(data)
            return replies(client)

    def ask(self, action: str, **arguments: Any) -> Any:
        """Return the last reply to a request."""
        return self.exchange(request(action, **arguments))[-1]


def request(action: str, **arguments: Any) -> bytes:
    return json.dumps({"version": 1, "action": action, "arguments": arguments}).encode() + b"\n"


def replies(client: socket.socket) -> list[Any]:
    """Return the replies up to the end of the connection."""
    received = b""
    try:
        while data := client.recv(2**16):
            received += data
    except ConnectionResetError:  # the server has not read all that was sent
        pass
    return [json.loads(line) for line in received.splitlines()]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Action]], Served]]:
    """Serve a table of actions, so that no client is too slow."""
    monkeypatch.setattr(server, "REQUEST_TIMEOUT", DEADLINE)
    with ExitStack() as stack:
        yield lambda table, pid=1: stack.enter_context(Served(table, pid))
