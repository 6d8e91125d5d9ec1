"""The queue of a listening socket: closing it to newcomers, and turning away the clients that are in it."""

from __future__ import annotations

import contextlib
import ctypes
import math
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..servers.sockets import Bound

# Of struct tcp_info in <linux/tcp.h>: for a socket that listens, the length of its queue.
_UNACKED = struct.Struct("=24xI")

# asm/socket.h. A program of classic BPF (linux/filter.h), which is given packets from their TCP header on:
# load the flags, keep SYN and ACK of them, and drop what has SYN alone.
SO_ATTACH_FILTER = 26
NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # A = the byte at 13
        (0x54, 0, 0, 0x12),  # A &= SYN | ACK
        (0x15, 0, 1, 0x02),  # if A == SYN: next, else: the one after
        (0x06, 0, 0, 0),  # return 0: drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # return all: keep it
    )
)

ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 17\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    b"Shutting down...\n"
)
LONGEST_HEAD = 65536
PATIENCE = 1.0
"""Seconds in which the clients that are turned away send their requests and take their answers."""

LAST_CHANCE = 0.25
"""Seconds after that in which those are answered for which no descriptor was free before."""


def queue_length(sock: socket.socket) -> int | None:
    """Return how many connections wait to be accepted; None where the kernel does not say."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return None
    try:
        unacked: int = _UNACKED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED.size))[0]
    except OSError:
        return None
    return unacked


def close_queue(bound: Bound) -> None:
    """Admit no more clients, but for those that have begun to shake hands.

    Where the kernel has no filters, the queue goes on to admit one at a time.
    """
    bound.unlink()
    if bound.socket.family == socket.AF_UNIX:  # then there is no way to it any more
        return
    bound.is_filtered = bound.is_filtered or _drop_newcomers(bound.socket)
    if not bound.is_filtered:
        with contextlib.suppress(OSError):
            bound.socket.listen(0)


def _drop_newcomers(sock: socket.socket) -> bool:
    """Tell the kernel to drop every packet that would begin a connection; return whether it does.

    A backlog of 0 would also drop the end of handshakes under way: their clients take themselves for
    connected, send their requests, and are reset when the socket closes.
    """
    if sys.platform != "linux":
        return False
    program = ctypes.create_string_buffer(NO_SYN)
    try:
        sock.setsockopt(
            socket.SOL_SOCKET,
            SO_ATTACH_FILTER,
            struct.pack("HP", len(NO_SYN) // 8, ctypes.addressof(program)),
        )
    except OSError:  # forbidden in some sandbox
        return False
    return True


def is_empty(bound: Bound) -> bool:
    return not select.select([bound.socket], [], [], 0)[0]


def turn_away(bounds: Iterable[Bound], within: float = PATIENCE) -> None:
    """Answer 503 to all clients that wait, and close the sockets so that no connection is reset.

    ``within``: seconds in all for the clients to send their requests and take their answers. Then those that
    have sent a request are answered, and the others are closed.
    """
    open_ones = list(bounds)
    deadline = time.monotonic() + within
    for bound in open_ones:
        close_queue(bound)
        bound.socket.setblocking(False)
    with contextlib.ExitStack() as stack:
        desk = stack.enter_context(_Desk(open_ones))
        desk.serve(deadline)
        for bound in list(open_ones):
            while not _fill(stack, bound.socket, bound) and time.monotonic() < deadline:
                desk.serve(deadline)
            open_ones.remove(bound)
            bound.close()


class _Desk:
    """Answers the clients of several queues at the same time, so that none waits for a slow one."""

    def __init__(self, bounds: list[Bound]) -> None:
        self._bounds = bounds
        self._clients: dict[int, _Client] = {}

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, *args: object) -> None:
        for client in self._clients.values():
            client.connection.close()

    def serve(self, deadline: float) -> None:
        """Answer until no client is left, or the deadline; what waits then has one more chance."""
        while self._accept() or self._clients:
            left = deadline - time.monotonic()
            self._hear(max(left, 0))
            if left <= -LAST_CHANCE:
                return
            if left <= 0:  # also to make room for those still in the queue
                self.__exit__()
                self._clients.clear()

    def _accept(self) -> bool:
        """Accept all that wait, and return whether there were any."""
        found = False
        for bound in self._bounds:
            with contextlib.suppress(OSError):  # the queue is empty, or no descriptor is free
                while True:
                    connection, _ = bound.socket.accept()
                    self._clients[connection.fileno()] = _Client(connection)
                    found = True
        return found

    def _hear(self, seconds: float) -> None:
        poll = select.poll()
        for descriptor in (*self._clients, *(bound.socket.fileno() for bound in self._bounds)):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(math.ceil(seconds * 1000)):
            client = self._clients.get(descriptor)
            if client is not None and not client.hear():
                del self._clients[descriptor]
                client.connection.close()


class _Client:
    """A connection that is turned away: it sends its request, takes its answer and closes."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._head = b""
        self._is_answered = False

    def hear(self) -> bool:
        """Read what has come, and answer a request; return whether the client has not closed yet."""
        try:
            data = self.connection.recv(LONGEST_HEAD)
            if not self._is_answered:
                self._head += data
                is_whole = b"\r\n\r\n" in self._head or len(self._head) >= LONGEST_HEAD
                if self._head and (is_whole or not data):
                    self._answer()
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(data)  # what is unread when the connection is closed would reset it

    def _answer(self) -> None:
        self._is_answered = True
        self._head = b""
        self.connection.sendall(ANSWER)  # the buffer of a new connection has room for it
        self.connection.shutdown(socket.SHUT_WR)


def _fill(stack: contextlib.ExitStack, sock: socket.socket, bound: Bound) -> bool:
    """Take the one place in a closed queue ourselves, so that no client is in it when the socket closes.

    Return whether no client is in it.
    """
    if bound.is_filtered or queue_length(sock) is None:
        return True
    own = stack.enter_context(socket.socket(sock.family, socket.SOCK_STREAM))
    own.setblocking(False)
    host, *rest = sock.getsockname()
    own.connect_ex(({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), *rest))
    select.select([], [own], [], 0.05)
    try:
        own.getpeername()
    except OSError:  # a client was quicker; or it cannot be reached from here, and there is nothing to do
        own.close()
        return is_empty(bound)
    if queue_length(sock) == 1:
        return True
    own.close()
    return False
