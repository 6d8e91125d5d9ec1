"""The queue of a listening socket: closing it to newcomers, and turning away who is still in it."""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sockets import Bound

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
    """Let nobody in any more, but who is in already, or has begun to shake hands.

    Where the kernel has no filters, it goes on to admit one at a time.
    """
    bound.unlink()
    if bound.socket.family == socket.AF_UNIX:  # then there is no way to it any more
        return
    bound.is_filtered = bound.is_filtered or _drop_newcomers(bound.socket)
    if not bound.is_filtered:
        with contextlib.suppress(OSError):
            bound.socket.listen(0)


def _drop_newcomers(sock: socket.socket) -> bool:
    """Have the kernel drop every packet that would begin a connection; return whether it does.

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


def turn_away(bound: Bound, within: float = PATIENCE) -> None:
    """Answer 503 to all who wait, and close the socket so that nobody's connection is reset.

    ``within``: seconds in all for them to send their requests and take their answers.
    """
    close_queue(bound)
    sock = bound.socket
    sock.setblocking(False)
    deadline = time.monotonic() + within
    with contextlib.ExitStack() as stack:
        while _answer_all(sock, deadline) or not _fill(stack, sock, bound):
            if time.monotonic() > deadline:
                break
        bound.close()


def _answer_all(sock: socket.socket, deadline: float) -> bool:
    """Accept all who wait and answer them; return whether there were any."""
    found = False
    while True:
        try:
            connection, _ = sock.accept()
        except OSError:
            return found
        found = True
        with connection, contextlib.suppress(OSError):
            _answer(connection, deadline)


def _answer(connection: socket.socket, deadline: float) -> None:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < LONGEST_HEAD:
        data = _receive(connection, deadline)
        if not data:
            break
        head += data
    if head:
        connection.sendall(ANSWER)
    connection.shutdown(socket.SHUT_WR)
    while _receive(connection, deadline):  # what is unread when it is closed would reset it
        pass


def _receive(connection: socket.socket, deadline: float) -> bytes:
    connection.settimeout(max(min(deadline - time.monotonic(), PATIENCE / 2), 0.01))
    return connection.recv(LONGEST_HEAD)


def _fill(stack: contextlib.ExitStack, sock: socket.socket, bound: Bound) -> bool:
    """Take the one place in a closed queue ourselves, so that nobody can be in it when it goes.

    Return whether there is nobody else in it.
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
    except OSError:  # somebody was quicker; or it cannot be reached from here, and there is nothing to do
        own.close()
        return is_empty(bound)
    if queue_length(sock) == 1:
        return True
    own.close()
    return False
