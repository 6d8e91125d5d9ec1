"""How the processes of a site talk: lines of JSON over sockets, which are handed in over a pair."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("django_wspbus")

Message = dict[str, Any]


class Link:
    """One end of a connection between the site process and a process of its child servers."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._received = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Message) -> None:
        """Send a message; a value that JSON does not know is a TypeError, an absent peer an OSError."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Message] | None:
        """Wait for messages and return what came; None at the end. May return none, if a part came."""
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]


def hand_in(pair: socket.socket) -> Link:
    """Make a new link, and send its other end over the pair."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            socket.send_fds(pair, [b"+"], [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
    return Link(ours)


def take_in(pair: socket.socket) -> Link | None:
    """Take the next link from the pair; None once every process of the other end is gone."""
    try:
        data, descriptors, _, _ = socket.recv_fds(pair, 1, 1)
    except ConnectionError:
        return None
    if not data:
        return None
    if not descriptors:
        raise OSError(errno.EMFILE, "No descriptor was free for what another process has handed in")
    # Else a later program would inherit it, and hide the end of its sender. (recv_fds drops its flags.)
    os.set_inheritable(descriptors[0], False)
    return Link(socket.socket(fileno=descriptors[0]))


class Switchboard:
    """A thread that calls a function whenever a descriptor becomes readable."""

    def __init__(self) -> None:
        self._watched: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        self._thread: threading.Thread | None = None
        self._closing = False

    def watch(self, descriptor: int, readable: Callable[[], None]) -> None:
        with self._lock:
            self._watched[descriptor] = readable
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="Site switchboard", daemon=True)
                self._thread.start()
        self._wake()

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no longer; its function is not called after this returns, but may be running."""
        with self._lock:
            self._watched.pop(descriptor, None)
        self._wake()

    def close(self) -> None:
        self._closing = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        self._wake_reader.close()
        self._wake_writer.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes anyway
            self._wake_writer.send(b".")

    def _run(self) -> None:
        while not self._closing:
            poll = select.poll()
            poll.register(self._wake_reader, select.POLLIN)
            with self._lock:
                for descriptor in self._watched:
                    poll.register(descriptor, select.POLLIN)
            for descriptor, _ in poll.poll():
                if descriptor == self._wake_reader.fileno():
                    os.read(descriptor, 4096)
                    continue
                with self._lock:
                    readable = self._watched.get(descriptor)
                if readable is not None:
                    try:
                        readable()
                    except Exception:  # of one child's news; the others' are still to be heard
                        logger.exception("News of a server's process were lost.")
