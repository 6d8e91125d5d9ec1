"""Connections that the threaded server leaves to the process after its own, and takes from the one before."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes import DEADLINE

from .clients import connect, read_to_end
from .conftest import Later
from .load import await_that
from .threaded.test_server import Serve, Served, gate, serve

__all__ = ["serve"]

GET = b"GET /again HTTP/1.1\r\nHost: shop\r\n\r\n"


class Estate:
    """What is between two processes, here in one: copies of the connections."""

    def __init__(self) -> None:
        self.left: list[socket.socket] = []

    def leave(self, connection: socket.socket) -> None:
        self.left.append(connection.dup())

    def claim(self, listener: socket.socket) -> list[socket.socket]:
        claimed = [each for each in self.left if each.getsockname() == listener.getsockname()]
        self.left = [each for each in self.left if each not in claimed]
        return claimed


@pytest.fixture
def estate() -> Iterator[Estate]:
    estate = Estate()
    yield estate
    for each in estate.left:
        each.close()


@pytest.fixture(params=[True, False], ids=["threads", "in turn"])
def start(request: pytest.FixtureRequest, serve: Serve, estate: Estate, monkeypatch: Any) -> Serve:
    """Start a server that has an heir, on the sockets of the one before if there is one."""

    def start(before: Served | None = None) -> Served:
        served = Served("127.0.0.1:0", threading=request.param)
        served.server.heir = estate
        served.server.patience = 0.2
        if before is not None:
            served.sockets.bound = before.sockets.bound
            served.sockets._is_complete = True
        served.bus.start()
        return served

    return start


def restart(served: Served) -> None:
    """Stop it as on the way to the next program."""
    served.bus.restart()


def status_of(sock: socket.socket) -> bytes:
    return sock.recv(65536).split(b"\r\n")[0]


def test_connections_that_have_not_begun_to_ask_are_answered_by_the_next_process(
    start: Serve, estate: Estate
) -> None:
    old = start()
    with connect(old.address) as silent, connect(old.address) as asked:
        asked.sendall(GET)
        assert status_of(asked) == b"HTTP/1.1 200 OK"
        await_that(lambda: len(old.server._exchanges()) >= 1)
        restart(old)
        silent.sendall(GET)  # nobody is there to read it
        assert not select.select([silent], [], [], 0)[0]

        new = start(old)
        assert status_of(silent) == b"HTTP/1.1 200 OK"
        new.exit(within=5)


def test_a_connection_that_was_kept_alive_lives_on(serve: Serve, estate: Estate) -> None:
    old = serve()
    old.server.heir = estate
    with old.client() as client:
        assert client.ask("/")[0] == 200
        name = client.sock.getsockname()
        restart(old)
        new = Served("127.0.0.1:0")
        new.server.heir = estate
        new.sockets.bound, new.sockets._is_complete = old.sockets.bound, True
        new.bus.start()
        assert client.ask("/")[0] == 200
        assert client.sock.getsockname() == name
        new.exit(within=5)


def test_a_request_in_flight_is_answered_and_its_connection_left_then(
    serve: Serve, estate: Estate, later: Later
) -> None:
    old = serve()
    old.server.heir = estate
    with connect(old.address) as sock:
        sock.sendall(b"GET /held HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert gate.reached.wait(DEADLINE)
        restarted = later(old.bus.restart)
        old.wait_until_told_to_stop()
        gate.opened.set()
        answer = sock.recv(65536)
        restarted.result()
        assert b"200 OK" in answer
        assert b"Connection: close" not in answer
        assert len(estate.left) == 1
    old.sockets.close()


def test_what_is_not_answered_in_time_is_cut_off_and_no_failure(serve: Serve) -> None:
    served = serve()
    served.server.patience = 0.1
    with connect(served.address) as sock:
        sock.sendall(b"GET /held HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert gate.reached.wait(DEADLINE)
        served.exit(within=5)
        assert not served.bus.failed
        assert read_to_end(sock) == b""
        gate.opened.set()
    await_that(lambda: not served.server._exchanges())
    served.server._stop.close()
    assert any("not answered within 0.1 seconds: GET /held" in line for line in served.lines)


def test_a_connection_whose_client_has_gone_meanwhile_costs_nothing(
    start: Serve, estate: Estate, later: Later, capfd: pytest.CaptureFixture[str]
) -> None:
    old = start()
    with contextlib.closing(connect(old.address)) as sock:
        await_that(lambda: len(old.server._exchanges()) == 1)
        restart(old)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    (left,) = estate.left
    assert select.select([left], [], [], DEADLINE)[0]
    new = start(old)
    later(new.bus.exit).result()  # in another thread than that which has started it
    assert "Traceback" not in capfd.readouterr().err
