"""Sockets of a site and their clients, for the tests of queues."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable

import pytest

from django_wspbus.sockets import queue
from django_wspbus.sockets.bound import Bound

Bind = Callable[..., Bound]
Clients = contextlib.ExitStack

SOON = 0.1
SO_LOCK_FILTER = 44
REQUEST = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"

INET = ["127.0.0.1:0", "[::1]:0", ":0", "[::]:0"]


def may_filter() -> bool:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return queue._drop_newcomers(sock)


needs_filters = pytest.mark.skipif(not may_filter(), reason="the kernel lets this user attach no filters")


def address_of(bound: Bound) -> str:
    """Return where a client of this machine finds it."""
    return bound.name if bound.name.startswith("unix:") else bound.url[len("http://") : -1]


def forbid_filters(bound: Bound) -> None:
    """Have the kernel refuse to change the filter of a socket, as some sandbox does."""
    bound.socket.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)


def try_to_connect(bound: Bound) -> socket.socket:
    """Return a socket that is about to connect, if it gets so far."""
    address = address_of(bound)
    host, _, port = address.rpartition(":")
    sock = socket.socket(bound.socket.family)
    sock.setblocking(False)
    sock.connect_ex((host.strip("[]"), int(port)))
    return sock


def is_connected(sock: socket.socket, within: float = SOON) -> bool:
    return bool(select.select([], [sock], [], within)[1])


def ask(sock: socket.socket) -> None:
    """Send a request, and end the sending side, so that the server does not wait for the client to close."""
    sock.sendall(REQUEST)
    sock.shutdown(socket.SHUT_WR)
