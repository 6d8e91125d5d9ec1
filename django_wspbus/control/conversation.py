"""A connection to the control socket of a site, whose user is verified before anything is sent."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time

from .address import Name
from .peers import pid_of_peer, uid_of_peer
from .protocol import (
    FAILED,
    LARGEST_REPLY,
    MISUSED,
    Malformed,
    Reply,
    Request,
    decode_reply,
    encode_request,
)

SEND_TIMEOUT = 10.0
"""Seconds for a site to take a request."""

NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


class ControlError(Exception):
    """The request cannot be made, or gets no answer. ``status``: the exit status of the command."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


class FalseSite(ControlError):
    """A socket belongs to another user than its name claims. ``uid``: that user."""

    def __init__(self, uid: int) -> None:
        super().__init__(f"is no site of its user: its socket belongs to the user with the uid {uid}")
        self.uid = uid


class Disconnected(ControlError):
    """The site has ended, or restarted, before its last reply."""


class StillOpen(ControlError):
    """The site has not closed the connection in time."""


class Conversation:
    """A connection to a site whose user has been verified. ``uid``: that user."""

    def __init__(self, name: Name, *, timeout: float) -> None:
        self.name = name
        self._received = bytearray()
        self._socket = connect(name, timeout)
        try:
            self.uid = verify(self._socket, name)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def pid(self) -> int:
        """The PID of the site, in the namespace of this process; 0 if it has none there."""
        return pid_of_peer(self._socket)

    def close(self) -> None:
        self._socket.close()

    def send(self, request: Request) -> None:
        try:
            line = encode_request(request)
        except (TypeError, ValueError) as error:
            raise ControlError(f"The request cannot be sent: {error}.", MISUSED) from None
        self._socket.settimeout(SEND_TIMEOUT)
        # The site may have closed the connection, perhaps with a reason to read.
        with contextlib.suppress(OSError):
            self._socket.sendall(line, NO_SIGNAL)

    def has_more(self, seconds: float) -> bool:
        """Wait some seconds at most for bytes, or the end of the connection; return whether they came."""
        if b"\n" in self._received:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(max(seconds, 0) * 1000))

    def receive(self, timeout: float) -> Reply:
        """Return the next reply; `ControlError` if none comes in time, or if the connection ends."""
        deadline = time.monotonic() + timeout
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if not self.has_more(deadline - time.monotonic()):
                raise ControlError(f"The site has not answered within {timeout:g} seconds.")
            data = self._read()
            if not data:
                raise Disconnected("The site has ended, or closed the connection, before it answered.")
            self._received += data
            if len(self._received) > LARGEST_REPLY + len(data):
                raise ControlError(f"The site has sent more than {LARGEST_REPLY:,} bytes in one reply.")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            return decode_reply(line)
        except Malformed as error:
            raise ControlError(f"The answer of the site was not understood: {error}.") from None

    def await_end(self, seconds: float) -> None:
        """Wait until the site has closed the connection; `StillOpen` if that takes too long."""
        deadline = time.monotonic() + seconds
        while self.has_more(deadline - time.monotonic()):
            self._received.clear()
            if not self._read():
                return
        raise StillOpen(f"The process of the site has not ended within {seconds:g} seconds.")

    def _read(self) -> bytes:
        try:
            return self._socket.recv(2**16)
        except ConnectionError:
            return b""


def connect(name: Name, timeout: float) -> socket.socket:
    """Connect to a control socket; BlockingIOError if its queue is full for too long."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if timeout:
            # Not settimeout(): a socket that does not block gets EAGAIN at once while the queue is full.
            seconds, fraction = divmod(timeout, 1)
            limit = struct.pack("ll", int(seconds), int(fraction * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        else:
            sock.setblocking(False)
        sock.connect(name.address)
    except BaseException:
        sock.close()
        raise
    return sock


def is_allowed(uid: int) -> bool:
    """Return whether this process may talk to sites of a user."""
    return os.geteuid() in (0, uid)


def verify(sock: socket.socket, name: Name) -> int:
    """Return the user at the other end; `ControlError` unless it is that of the name, and one to talk to."""
    uid = uid_of_peer(sock)
    if name.uid is not None and uid != name.uid:
        raise FalseSite(uid)
    if not is_allowed(uid):
        raise ControlError(f"belongs to the user with the uid {uid}")
    return uid
