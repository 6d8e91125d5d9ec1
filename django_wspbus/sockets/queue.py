"""The queue of clients that wait at a listening socket: its length, and closing it to new clients."""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bound import Bound

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
    """Admit no new clients; those that have begun to shake hands still get in.

    Where the kernel takes no filter, the queue still admits one client at a time.
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
