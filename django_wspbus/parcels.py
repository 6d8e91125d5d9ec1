"""How the launcher and its child talk: lines of JSON over a socket pair, and descriptors with them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterable
from typing import Any

Message = dict[str, Any]

RELAUNCH = 3
"""The status of a process that the launcher is to start again; django.utils.autoreload has the same."""

MOST = 200
"""Descriptors at once: the kernel takes up to 253 (SCM_MAX_FD)."""


class Parcels:
    """One end of the pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._received = b""
        self._descriptors: list[int] = []
        self._lock = threading.Lock()  # several threads may have something to send

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end, and what has come in for a message that has not."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self._socket.close()

    def send(self, message: Message, descriptors: Iterable[int] = ()) -> None:
        """Send a message; the receiver gets copies of the descriptors. An absent receiver is an OSError."""
        descriptors = list(descriptors)
        line = json.dumps({**message, "descriptors": len(descriptors)}).encode() + b"\n"
        with self._lock:
            for first in range(0, len(descriptors), MOST):
                # A blank before a line of JSON means nothing.
                socket.send_fds(self._socket, [b" "], descriptors[first : first + MOST])
            self._socket.sendall(line)

    def receive(self) -> list[tuple[Message, list[int]]] | None:
        """Wait for messages, return what came, each with its descriptors; None once the other end is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, MOST)
        except ConnectionError:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [self._opened(json.loads(line)) for line in lines]

    def _opened(self, message: Message) -> tuple[Message, list[int]]:
        count = message.pop("descriptors")
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return message, taken
