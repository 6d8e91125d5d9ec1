"""A socket that plays systemd: it receives what a site reports to its service manager."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from .processes import DEADLINE

CREDENTIALS = struct.Struct("3i")
"""PID, uid and gid of a sender, as unix(7) has them."""

Message = dict[str, str]
"""The fields of a message by name."""


class ServiceManager:
    """The socket of NOTIFY_SOCKET, as a context manager, and the messages that have come so far.

    ``name``: a path, or "@" and a name that is no file.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[Message] = []
        self.senders: set[int] = set()
        """The PIDs of the processes that have sent them."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def __enter__(self) -> Self:
        self._socket.bind("\0" + self.name[1:] if self.name.startswith("@") else self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        if not self.name.startswith("@"):
            with contextlib.suppress(OSError):
                Path(self.name).unlink()

    def receive(self) -> Message:
        """Wait for the next message, and return it."""
        data, ancillary, _, _ = self._socket.recvmsg(65536, socket.CMSG_SPACE(CREDENTIALS.size))
        self.senders |= {CREDENTIALS.unpack(value)[0] for *_, value in ancillary}
        lines = data.decode().splitlines()
        self.messages.append(dict(line.split("=", 1) for line in lines))
        return self.messages[-1]

    def wait_for(self, name: str, text: str = "") -> Message:
        """Wait for the next message that has a field, whose value holds a text; return the message."""
        deadline = time.monotonic() + DEADLINE
        while name not in (message := self.receive()) or text not in message[name]:
            assert time.monotonic() < deadline, f"No {name} with {text!r} in {self.messages}"
        return message

    def drain(self) -> list[Message]:
        """Return all messages, also those that have come unread."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.receive()
        self._socket.settimeout(DEADLINE)
        return self.messages
