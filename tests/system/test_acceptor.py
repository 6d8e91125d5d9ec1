"""Connections that are accepted in the loop of a selector."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterator

import pytest

from django_wspbus.system.acceptor import Acceptor

from ..descriptors import no_descriptor
from ..processes import DEADLINE


class Clients:
    """An acceptor and the connections that it has accepted. They are dropped only if ``may_drop``."""

    def __init__(self, listeners: list[socket.socket], selector: selectors.BaseSelector) -> None:
        self.accepted: list[socket.socket] = []
        self.may_drop = True
        self.selector = selector
        self.acceptor = Acceptor(listeners, selector, self.accepted.append, self.drop_oldest)

    def drop_oldest(self) -> bool:
        if not self.accepted or not self.may_drop:
            return False
        self.accepted.pop(0).close()
        self.acceptor.refill()
        return True

    def turn(self) -> None:
        """Let the loop run once, until a client comes or a pause ends."""
        resumes = self.acceptor.resumes
        timeout = DEADLINE if resumes is None else resumes - time.monotonic()
        for key, _ in self.selector.select(max(timeout, 0)):
            key.data()
        self.acceptor.look(time.monotonic())


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]


@pytest.fixture
def clients(listeners: list[socket.socket], selector: selectors.BaseSelector) -> Iterator[Clients]:
    clients = Clients(listeners, selector)
    yield clients
    clients.acceptor.close()
    for connection in clients.accepted:
        connection.close()


def connect(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=DEADLINE)


def test_the_clients_of_each_listener_are_accepted(clients: Clients, listeners: list[socket.socket]) -> None:
    for listener in listeners:
        with connect(listener) as client:
            clients.turn()
            assert clients.accepted[-1].getpeername() == client.getsockname()


def test_without_a_free_descriptor_a_new_client_replaces_the_oldest(
    clients: Clients, listeners: list[socket.socket]
) -> None:
    with socket.socket() as first, socket.socket() as second, no_descriptor():
        first.connect(listeners[0].getsockname())
        clients.turn()  # with the descriptor in reserve
        second.connect(listeners[1].getsockname())
        clients.turn()
        assert [each.getpeername() for each in clients.accepted] == [second.getsockname()]


def test_if_no_descriptor_can_be_freed_it_listens_again_after_a_pause(
    clients: Clients, listeners: list[socket.socket]
) -> None:
    clients.may_drop = False
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        with no_descriptor():
            first.connect(listeners[0].getsockname())
            clients.turn()
            assert len(clients.accepted) == 1
            second.connect(listeners[0].getsockname())
            third.connect(listeners[1].getsockname())
            clients.turn()  # both listeners may be ready in this turn
            assert clients.acceptor.resumes is not None
            assert len(clients.accepted) == 1
        while clients.acceptor.resumes is not None:
            clients.turn()
        while len(clients.accepted) < 3:
            clients.turn()


def test_it_can_be_closed_during_a_turn(clients: Clients, listeners: list[socket.socket]) -> None:
    with connect(listeners[0]), connect(listeners[1]):
        ready = clients.selector.select(DEADLINE)
        clients.acceptor.close()
        for key, _ in ready:
            key.data()
        assert clients.accepted == []
        assert not clients.selector.get_map()
        clients.acceptor.refill()  # of a connection that is closed later
        assert clients.acceptor._reserve is None
