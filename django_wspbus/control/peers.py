"""The user at the other end of a Unix socket, as the kernel knows it."""

from __future__ import annotations

import os
import socket
import struct

CREDENTIALS = struct.Struct("3i")
"""struct ucred of Linux: PID, UID, GID."""

XUCRED = struct.Struct("Ii")
"""The beginning of struct xucred of macOS: version, UID."""

LOCAL_PEERCRED = 1
"""The option of macOS, on the level 0 (SOL_LOCAL), that names the user at the other end."""


def uid_of_peer(sock: socket.socket) -> int:
    """Return the UID of the process that has connected, or that listened; OSError if there is none."""
    if hasattr(socket, "SO_PEERCRED"):
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        return int(CREDENTIALS.unpack(found)[1])
    return int(XUCRED.unpack_from(sock.getsockopt(0, LOCAL_PEERCRED, 256))[1])


def pid_of_peer(sock: socket.socket) -> int:
    """Return the PID of the process that listened; 0 if it has none in the namespace of this process."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(found)[0]
    return pid


def is_admitted(uid: int) -> bool:
    """Return whether a user may give this process orders: root, and the user of the process."""
    return uid in (0, os.geteuid())
