"""How the processes of a site talk: lines of JSON over sockets, which are handed in over a pair."""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import json
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("django_wspbus")

Message = dict[str, Any]


class Link:
    """One end of a connection between the site process and a process of its child servers."""

    def __init__(self, sock: socket.socket, received: bytes = b"") -> None:
        self._socket = sock
        self._received = received

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
        self._received += data
        return self.received()

    def received(self) -> list[Message]:
        """Return the messages that are here already."""
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    def hand_on(self, unanswered: list[Message]) -> tuple[int, str]:
        """Return its descriptor, and what the next owner of it has to hear first."""
        again = b"".join(json.dumps(message).encode() + b"\n" for message in unanswered)
        return self.fileno(), (again + self._received).decode()


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
    """A thread that calls functions: when a descriptor becomes readable, or when their time has come."""

    def __init__(self) -> None:
        self._watched: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serials = itertools.count()
        self._lock = threading.Lock()
        self._pair: tuple[socket.socket, socket.socket] | None = None  # by which the thread is woken
        self._thread: threading.Thread | None = None
        self._pausing = False

    def watch(self, descriptor: int, readable: Callable[[], None]) -> None:
        with self._lock:
            self._watched[descriptor] = readable
        self.resume()

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no longer; its function is not called after this returns, but may be running."""
        with self._lock:
            self._watched.pop(descriptor, None)
        self._wake()

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._serials), function))
        self.resume()

    def resume(self) -> None:
        """Start the thread, if there is none."""
        with self._lock:
            if self._pair is None:
                self._pair = socket.socketpair()
                self._pair[1].setblocking(False)
            if self._thread is None:
                self._pausing = False
                self._thread = threading.Thread(target=self._run, name="Site switchboard", daemon=True)
                self._thread.start()
        self._wake()

    def pause(self) -> None:
        """End the thread; what happens from now on stays to be seen."""
        self._pausing = True
        self._wake()
        thread = self._thread
        if thread is not None:
            thread.join()
            self._thread = None

    def close(self) -> None:
        self.pause()
        if self._pair is not None:
            for sock in self._pair:
                sock.close()
            self._pair = None

    def _wake(self) -> None:
        if self._pair is not None:
            with contextlib.suppress(OSError):  # full: it wakes anyway
                self._pair[1].send(b".")

    def _run(self) -> None:
        assert self._pair is not None
        reader = self._pair[0]
        while not self._pausing:
            for call in self._due():
                self._call(call)
            poll = select.poll()
            poll.register(reader, select.POLLIN)
            with self._lock:
                for descriptor in self._watched:
                    poll.register(descriptor, select.POLLIN)
                pause = self._timers[0][0] - time.monotonic() if self._timers else None
            for descriptor, _ in poll.poll(None if pause is None else max(math.ceil(pause * 1000), 0)):
                if descriptor == reader.fileno():
                    os.read(descriptor, 4096)
                    continue
                with self._lock:
                    readable = self._watched.get(descriptor)
                if readable is not None:
                    self._call(readable)

    def _due(self) -> list[Callable[[], None]]:
        due = []
        with self._lock:
            while self._timers and self._timers[0][0] <= time.monotonic():
                due.append(heapq.heappop(self._timers)[2])
        return due

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:  # of one child's news; the others' are still to be heard
            logger.exception("News of a server's process were lost.")
