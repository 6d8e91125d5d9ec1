"""The orders of the site to a child, as the child reads them from the pair of sockets."""

from __future__ import annotations

import socket

from django_wspbus.children.orders import DRAIN, EXIT, SERVE, follow_orders, read_exit, read_orders


def test_orders_stay_in_the_pair_and_the_last_order_to_exit_holds() -> None:
    site, child = socket.socketpair()
    with site, child:
        assert read_orders(child) == b""
        site.sendall(SERVE)
        assert read_exit(read_orders(child)) is None
        site.sendall(DRAIN + EXIT % (10.5, 20.25))
        site.sendall(EXIT % (3.0, 4.0))
        for _ in range(2):
            assert SERVE in read_orders(child)
            assert DRAIN in read_orders(child)
            assert read_exit(read_orders(child)) == (3.0, 4.0)


def test_orders_are_followed_until_the_site_ends() -> None:
    site, child = socket.socketpair()
    with child:
        with site:
            orders = follow_orders(child)
            site.sendall(SERVE)
            assert next(orders) == SERVE
            site.sendall(DRAIN)
            assert next(orders) == SERVE + DRAIN
        assert list(orders) == []
