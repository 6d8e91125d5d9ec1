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

# tcpi_unacked of struct tcp_info in <linux/tcp.h>; for a listening socket it is the length of the queue.
_UNACKED = struct.Struct("=24xI")

# From asm/socket.h. The program is classic BPF (linux/filter.h) and gets each packet from its TCP header on.
# It drops the packets that have the flag SYN without ACK.
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
    """Return the number of connections that wait to be accepted; None if the kernel does not say."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return None
    try:
        unacked: int = _UNACKED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED.size))[0]
    except OSError:
        return None
    return unacked


def close_queue(bound: Bound) -> None:
    """Admit no new clients, except those whose TCP handshake has begun.

    Where the kernel takes no filter, the queue still admits one client at a time.
    """
    bound.unlink()
    if bound.socket.family == socket.AF_UNIX:  # without its file, no client finds it
        return
    bound.is_filtered = bound.is_filtered or _drop_newcomers(bound.socket)
    if not bound.is_filtered:
        with contextlib.suppress(OSError):
            bound.socket.listen(0)


def _drop_newcomers(sock: socket.socket) -> bool:
    """Make the kernel drop every packet that begins a connection; return False if it cannot.

    A backlog of 0 would also drop the last packet of handshakes under way. Their clients would be
    connected all the same, send their requests, and be reset when the socket closes.
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
    except OSError:  # some sandboxes forbid it
        return False
    return True


def is_empty(bound: Bound) -> bool:
    return not select.select([bound.socket], [], [], 0)[0]
