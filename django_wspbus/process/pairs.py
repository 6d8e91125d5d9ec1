"""New links between the site and a process of a child, sent over the pair of sockets that joins them."""

from __future__ import annotations

import errno
import os
import select
import socket
import time

from .encoding import NO_SIGNAL, send_descriptors
from .messages import Link, await_event, time_left


def hand_in(pair: socket.socket, name: str, timeout: float | None = None) -> Link:
    """Make a link and send its other end over the pair; TimeoutError if the peer does not take it in time."""
    ours, theirs = socket.socketpair()
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        with theirs:
            while not _hand_in(pair, theirs):
                if not await_event(pair, select.POLLOUT, time_left(deadline)):
                    raise TimeoutError(f"{name} took no connection for {timeout:g} seconds")
    except BaseException:
        ours.close()
        raise
    return Link(ours, name)


def _hand_in(pair: socket.socket, link: socket.socket) -> bool:
    try:
        send_descriptors(pair, b"+", [link.fileno()], socket.MSG_DONTWAIT | NO_SIGNAL)
    except BlockingIOError:
        return False
    return True


def take_in(pair: socket.socket) -> Link | None:
    """Take the next link from the pair; None once every process of the other end is gone.

    OSError if no descriptor is free for it.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(pair, 1, 1)
    except ConnectionError:
        return None
    if not data:
        return None
    if not descriptors:
        raise OSError(errno.EMFILE, "No descriptor was free for the link of another process")
    # A later program must not inherit it: an open copy would hide the end of the sender.
    os.set_inheritable(descriptors[0], False)
    return Link(socket.socket(fileno=descriptors[0]))
