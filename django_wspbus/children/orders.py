"""The orders of the site to the processes of a child.

Orders stay in the pair of sockets that joins the site and the child, for every process of the child to see.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterator
from typing import Any

SERVE = b"s"
"""Answer requests."""

DRAIN = b"d"
"""Answer the clients in the queue before the exit."""

EXIT = b"e%.3f,%.3f;"
"""Exit, with the moments at which requests and then listeners are cut off (see `phases`). The last one holds.
"""


def read_orders(pair: socket.socket) -> bytes:
    """Return all orders of the site so far."""
    poll = select.poll()  # before, as gevent's sockets wait whatever the flags say
    poll.register(pair, select.POLLIN)
    try:
        return pair.recv(256, socket.MSG_PEEK | socket.MSG_DONTWAIT) if poll.poll(0) else b""
    except OSError:
        return b""


def read_exit(orders: bytes) -> tuple[float, float] | None:
    """Return the moments of the last order to exit, of `time.monotonic`: of requests, and of listeners."""
    found = re.findall(rb"e([\d.]+),([\d.]+);", orders)
    return (float(found[-1][0]), float(found[-1][1])) if found else None


def follow_orders(pair: socket.socket) -> Iterator[bytes]:
    """Yield all orders of the site so far, again whenever another one comes; end when the site ends."""
    # An order stays in the pair: a poll for it returns at once from then on, so wait for arrivals only.
    if hasattr(select, "epoll"):
        arrivals: Any = select.epoll()
        arrivals.register(pair, select.EPOLLIN | select.EPOLLET)
        hangup, interval = select.EPOLLHUP, None
    else:  # macOS; gevent removes epoll
        arrivals = select.poll()
        arrivals.register(pair, 0)
        hangup, interval = select.POLLHUP, 500
    last = b""
    while True:
        if (orders := read_orders(pair)) != last:
            last = orders
            yield orders
        elif any(event & hangup for _, event in arrivals.poll(interval)):
            return


def has_ended(pair: socket.socket, within: float | None = 0) -> bool:
    """Return whether the site has ended, or does so within some seconds; None: wait until it has."""
    poll = select.poll()
    poll.register(pair, 0)  # for its end alone: it holds orders
    return bool(poll.poll(None if within is None else max(within, 0) * 1000))
