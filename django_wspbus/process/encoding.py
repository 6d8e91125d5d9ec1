"""Messages as bytes and descriptors on a socket.

A message is a header and a JSON text. The header has the version, the number of descriptors, and the length
of the text. With the length, the time to read a message grows only linearly.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any

Message = dict[str, Any]

VERSION = 1
HEADER = struct.Struct("!BxHI")
LARGEST = 16 * 2**20
"""Bytes of the longest JSON text."""

MOST_DESCRIPTORS = 200
"""Descriptors sent in one call: the kernel takes up to 253 (SCM_MAX_FD)."""

# A project may have restored SIGPIPE's default, which ends a process that writes to a closed socket.
NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


class Part:
    """An unsent part of a message, with the descriptors that go with its first byte."""

    def __init__(self, data: memoryview, descriptors: list[int]) -> None:
        self.data = data
        self.descriptors = descriptors
        self.owns = False

    def send(self, sock: socket.socket) -> None:
        """Send the bytes that the peer takes; BlockingIOError if it takes none."""
        if self.descriptors:
            sent = send_descriptors(sock, self.data, self.descriptors, NO_SIGNAL)
            self.close()
        else:
            sent = sock.send(self.data, NO_SIGNAL)
        self.data = self.data[sent:]

    def keep(self) -> None:
        """Duplicate the descriptors: the caller may close them before they are sent."""
        if not self.owns:
            self.descriptors = [os.dup(each) for each in self.descriptors]
            self.owns = True

    def close(self) -> None:
        descriptors, self.descriptors = self.descriptors, []
        for descriptor in descriptors if self.owns else ():
            os.close(descriptor)


def send_descriptors(
    sock: socket.socket, data: bytes | memoryview, descriptors: list[int], flags: int
) -> int:
    """Send data together with descriptors; return the number of bytes sent."""
    # socket.send_fds ignores its flags.
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    return sock.sendmsg([data], [rights], flags)


def encode(message: Message, descriptors: list[int]) -> bytes:
    text = json.dumps(message).encode()
    if len(text) > LARGEST:
        raise ValueError(f"a message has at most {LARGEST:,} bytes in JSON, and this one has {len(text):,}")
    return HEADER.pack(VERSION, len(descriptors), len(text)) + text


def split(data: bytes, descriptors: list[int]) -> list[Part]:
    """Split a message into parts of at most `MOST_DESCRIPTORS` descriptors; all but the last are one byte."""
    view = memoryview(data)
    parts = []
    while len(descriptors) > MOST_DESCRIPTORS:
        parts.append(Part(view[:1], descriptors[:MOST_DESCRIPTORS]))
        view, descriptors = view[1:], descriptors[MOST_DESCRIPTORS:]
    return [*parts, Part(view, descriptors)]
