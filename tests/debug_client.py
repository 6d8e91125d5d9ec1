"""A client of the Debug Adapter Protocol, as in an editor. It sets one breakpoint in every process."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any, Self

from .processes import DEADLINE

Message = dict[str, Any]


class DebugClient:
    """An editor that is attached to a debugger and to the processes that the debugger follows.

    ``stops``: the lines at which a process has stopped. The process then continues.
    """

    def __init__(self, port: int, file: Path, line: int) -> None:
        self.port = port
        self.file = file
        self.line = line
        self.stops: list[int] = []
        self.changed = threading.Condition()
        self._sessions: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._begin({})
        return self

    def __exit__(self, *args: object) -> None:
        for sock in self._sessions:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def wait_for_stops(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.stops) >= count, DEADLINE), self.stops

    def _begin(self, config: Message) -> None:
        sock = self._connect()
        self._sessions.append(sock)
        threading.Thread(target=self._attend, args=(sock, config), name="Debug client", daemon=True).start()

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port))
            except ConnectionRefusedError:  # the debugger does not listen yet
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def _attend(self, sock: socket.socket, config: Message) -> None:
        # An error here says that the process has ended.
        with sock, sock.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            _send(sock, "initialize", {"adapterID": "tests", "pathFormat": "path"})
            _send(sock, "attach", {"justMyCode": False, "subProcess": True, **config})
            while message := _receive(stream):
                self._answer(sock, message)

    def _answer(self, sock: socket.socket, message: Message) -> None:
        match message.get("event"):
            case "initialized":
                breakpoint_ = {"source": {"path": str(self.file)}, "breakpoints": [{"line": self.line}]}
                _send(sock, "setBreakpoints", breakpoint_)
                _send(sock, "configurationDone", {})
            case "debugpyAttach":
                self._begin(message["body"])
            case "stopped":
                thread = message["body"]["threadId"]
                _send(sock, "continue", {"threadId": thread})
                with self.changed:
                    self.stops.append(thread)
                    self.changed.notify_all()


def _send(sock: socket.socket, command: str, arguments: Message) -> None:
    body = json.dumps({"seq": 1, "type": "request", "command": command, "arguments": arguments}).encode()
    sock.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def _receive(stream: Any) -> Message | None:
    length = 0
    while (line := stream.readline()).strip():
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    found: Message | None = json.loads(stream.read(length)) if length else None
    return found
