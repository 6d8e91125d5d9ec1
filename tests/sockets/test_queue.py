"""The queue of a listening socket: its length, and closing it to new clients."""

from __future__ import annotations

import socket
import sys

import pytest

from django_wspbus.sockets.late_clients import ANSWER, turn_away
from django_wspbus.sockets.queue import close_queue, is_empty, queue_length
from tests.processes import DEADLINE

from ..servers.clients import connect, is_free, read_to_end
from .clients import (
    INET,
    REQUEST,
    Bind,
    Clients,
    address_of,
    ask,
    forbid_filters,
    is_connected,
    needs_filters,
    try_to_connect,
)

# Closing it to newcomers


@needs_filters
@pytest.mark.parametrize("address", INET)
def test_clients_in_a_closed_queue_stay_and_newcomers_get_no_answer(
    bind: Bind, clients: Clients, address: str
) -> None:
    bound = bind(address)
    inside = clients.enter_context(connect(address_of(bound)))
    close_queue(bound)
    outside = clients.enter_context(try_to_connect(bound))

    assert bound.is_filtered
    assert queue_length(bound.socket) == 1
    assert not is_connected(outside)
    accepted, _ = bound.socket.accept()
    with accepted:
        inside.sendall(b"question")
        assert accepted.recv(100) == b"question"
        accepted.sendall(b"answer")
    assert read_to_end(inside) == b"answer"


@needs_filters
def test_newcomers_to_a_closed_queue_are_refused_once_the_socket_is_gone(
    bind: Bind, clients: Clients
) -> None:
    bound = bind()
    close_queue(bound)
    outside = clients.enter_context(try_to_connect(bound))
    assert not is_connected(outside)
    bound.close()

    assert is_connected(outside, DEADLINE)  # its next try, a second later, shows it
    with pytest.raises(ConnectionRefusedError):
        outside.sendall(REQUEST)


@needs_filters
def test_clients_that_have_begun_to_shake_hands_still_get_in(bind: Bind, clients: Clients) -> None:
    bound = bind()
    # For the kernel, these clients end their handshakes only by what they send.
    bound.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
    connected = [clients.enter_context(connect(bound.name)) for _ in range(5)]
    assert queue_length(bound.socket) == 0
    close_queue(bound)
    for client in connected:
        ask(client)

    assert queue_length(bound.socket) == 5
    turn_away([bound])
    assert [read_to_end(client) for client in connected] == [ANSWER] * 5


def test_where_filters_are_forbidden_a_closed_queue_admits_one_more(bind: Bind, clients: Clients) -> None:
    bound = bind()
    forbid_filters(bound)
    close_queue(bound)
    newcomers = [clients.enter_context(try_to_connect(bound)) for _ in range(3)]

    assert not bound.is_filtered
    assert [is_connected(each) for each in newcomers] == [True, False, False]
    assert queue_length(bound.socket) == 1


def test_where_there_are_no_filters_nothing_is_asked_of_the_kernel(
    bind: Bind, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = bind()
    where = bound.name
    waiting = clients.enter_context(connect(where))
    ask(waiting)
    monkeypatch.setattr(sys, "platform", "darwin")
    turn_away([bound])

    assert not bound.is_filtered
    assert read_to_end(waiting) == ANSWER
    assert is_free(where)


def test_a_unix_socket_is_closed_to_newcomers_by_its_name(bind: Bind, clients: Clients) -> None:
    bound = bind("unix")
    waiting = clients.enter_context(connect(bound.name))
    ask(waiting)
    close_queue(bound)

    assert not bound.is_filtered
    assert is_free(bound.name)
    assert not is_empty(bound)
    turn_away([bound])
    assert read_to_end(waiting) == ANSWER


def test_the_queue_of_a_socket_that_is_closed_may_be_closed_again(bind: Bind) -> None:
    bound = bind()
    bound.socket.close()
    close_queue(bound)

    assert not bound.is_filtered


# How long it is


def test_the_length_of_a_queue_is_known_on_tcp(bind: Bind, clients: Clients) -> None:
    bound = bind()
    lengths = [queue_length(bound.socket)]
    empty = [is_empty(bound)]
    for _ in range(2):
        clients.enter_context(connect(bound.name))
        lengths.append(queue_length(bound.socket))
        empty.append(is_empty(bound))
    for _ in range(2):
        bound.socket.accept()[0].close()
    lengths.append(queue_length(bound.socket))
    empty.append(is_empty(bound))

    assert lengths == [0, 1, 2, 0]
    assert empty == [True, False, False, True]


def test_the_length_of_a_queue_is_not_known_elsewhere(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = bind()
    closed.socket.close()
    assert queue_length(closed.socket) is None
    assert queue_length(bind("unix").socket) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert queue_length(bind().socket) is None
