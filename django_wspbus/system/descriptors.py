"""Listening sockets of a process that has no descriptor left."""

from __future__ import annotations

import errno
import select
import socket

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
"""The errors of a call that needs a descriptor where none is free."""


def has_client(listener: socket.socket) -> bool:
    """Return whether a client waits to be accepted.

    Without a free descriptor the kernel fails to accept even if no client waits.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
