"""Connections that are served in turn, without a server around it."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from django_wspbus.servers.threaded.turns import Turns
from tests.processes import DEADLINE


class Echo:
    """Sends back what it receives, in capitals; the words "fail" and "exit" make it fail."""

    leave = None

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:
        self.threads.append(threading.current_thread())
        word = request.recv(100)
        if word in (b"fail", b"exit"):
            request.close()
            raise OSError("on purpose") if word == b"fail" else SystemExit(3)
        request.sendall(word.upper())
        request.close()

    def shutdown_request(self, request: socket.socket) -> None:
        request.close()


class Clients:
    def __init__(self, poll: select.poll, turns: Turns, server: Echo) -> None:
        self.poll = poll
        self.turns = turns
        self.server = server

    def connect(self, word: bytes = b"") -> socket.socket:
        """Return the client's end of a connection on which a word has been sent, if any."""
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE)
        ours.sendall(word)
        self.turns.add(self.server, theirs, "somebody")
        return ours


@pytest.fixture
def clients() -> Iterator[Clients]:
    poll = select.poll()
    clients = Clients(poll, Turns("In turn", poll), Echo())
    clients.turns.thread.start()
    yield clients
    clients.turns.end(0)
    clients.turns.thread.join(DEADLINE)
    assert not clients.turns.thread.is_alive()


@pytest.mark.parametrize("word", [b"fail", b"exit"])
def test_a_connection_that_fails_is_told_and_does_not_end_the_thread_of_the_others(
    clients: Clients, caplog: pytest.LogCaptureFixture, word: bytes
) -> None:
    with clients.connect(word) as failing, clients.connect(b"echo") as other:
        while found := clients.poll.poll(0):
            for descriptor, _ in found:
                clients.turns.take(descriptor)
        assert failing.recv(100) == b""
        assert other.recv(100) == b"ECHO"

    assert clients.server.threads == [clients.turns.thread] * 2
    assert "A connection from somebody was lost." in caplog.text
    assert "on purpose" in caplog.text


def test_at_the_end_who_has_sent_something_is_served_and_who_has_not_is_let_go(clients: Clients) -> None:
    with clients.connect(b"echo") as asking, clients.connect() as silent:
        clients.turns.end(0.01)
        assert asking.recv(100) == b"ECHO"
        assert silent.recv(100) == b""

    assert clients.server.threads == [clients.turns.thread]
