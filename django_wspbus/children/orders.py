"""The orders of the site to the processes of a child.

Orders stay in the pair of sockets that joins the site and the child, for every process of the child to see.
"""

from __future__ import annotations

import re
import select
import socket
from typing import Any

SERVE = b"s"
"""Answer requests."""

DRAIN = b"d"
"""Answer the clients in the queue before the exit."""

EXIT = b"e%.3f,%.3f;"
"""Exit, with the moments at which requests and then listeners are cut off; see `phases`."""


def read_orders(pair: socket.socket) -> bytes:
    """Return all orders of the site so far."""
    poll = select.poll()  # before, as gevent's sockets wait whatever the flags say
    poll.register(pair, select.POLLIN)
    try:
        return pair.recv(256, socket.MSG_PEEK | socket.MSG_DONTWAIT) if poll.poll(0) else b""
    except OSError:
        return b""


def read_exit(orders: bytes) -> tuple[float, float] | None:
    """Return the moments of an order to exit, of `time.monotonic`: of requests, and of listeners."""
    found = re.search(rb"e([\d.]+),([\d.]+);", orders)
    return None if found is None else (float(found[1]), float(found[2]))


def await_exit(pair: socket.socket) -> tuple[float, float] | None:
    """Wait for the order to exit and return its moments; None if the site ends."""
    # An order stays in the pair: a poll for it returns at once from then on, so wait for arrivals only.
    if hasattr(select, "epoll"):
        arrivals: Any = select.epoll()
        arrivals.register(pair, select.EPOLLIN | select.EPOLLET)
        hangup, interval = select.EPOLLHUP, None
    else:  # macOS; gevent removes epoll
        arrivals = select.poll()
        arrivals.register(pair, 0)
        hangup, interval = select.POLLHUP, 500
    while (moments := read_exit(read_orders(pair))) is None:
        if any(event & hangup for _, event in arrivals.poll(interval)):
            return None
    return moments


def has_ended(pair: socket.socket, within: float | None = 0) -> bool:
    """Return whether the site has ended, or does so within some seconds; None: wait until it has."""
    poll = select.poll()
    poll.register(pair, 0)  # for its end alone: it holds orders
    return bool(poll.poll(None if within is None else max(within, 0) * 1000))
