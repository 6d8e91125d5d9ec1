"""The threaded server and its connections, in the process of the tests."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from django_wspbus.conf import ServerSettings, Settings
from django_wspbus.conf import addresses as address
from django_wspbus.servers.sockets import Sockets
from django_wspbus.servers.threaded import ThreadedServer
from django_wspbus.servers.threaded.http_server import HTTPServer
from django_wspbus.wspbus import Bus
from tests.descriptors import no_descriptor
from tests.processes import DEADLINE

from ..clients import Client, connect, read_to_end
from ..conftest import THREADED, Later, descriptors, threads
from ..load import await_that, await_value


class Gate:
    """Where a request waits, and where a test waits for it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()


REQUEST = b"GET %s HTTP/1.1\r\nHost: shop\r\n\r\n"

gate = Gate()
buses: list[Bus] = []


served_in: list[int] = []


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    served_in.append(threading.get_ident())
    if path == "/held":
        gate.reached.set()
        gate.opened.wait(DEADLINE)
    elif path == "/exit":
        buses[-1].exit()
    elif path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream()
    names = ("REQUEST_METHOD", "PATH_INFO", "SERVER_PORT", "REMOTE_ADDR")
    body = " ".join(environ[name] for name in names).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def stream() -> Iterator[bytes]:
    yield b"first"
    gate.reached.set()
    gate.opened.wait(DEADLINE)
    yield b"last"


def leaving(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    served_in.append(threading.get_ident())
    raise SystemExit(3)


class Served:
    """A bus with the threaded server on it."""

    def __init__(
        self,
        *binds: str,
        stop_timeout: float = 20,
        threading: bool = True,
        application: str = f"{__name__}.application",
    ) -> None:
        self.bus = Bus()
        buses.append(self.bus)
        addresses = tuple(map(address.parse, binds))
        self.settings = ServerSettings(
            alias="default",
            backend=THREADED,
            bind=addresses,
            application=application,
            mounts={},
            options={} if threading else {"threading": False},
        )
        site = Settings(servers={"default": self.settings}, stop_timeout=stop_timeout)
        self.sockets = Sockets(self.bus, {"default": (addresses, 20)})
        self.server = ThreadedServer(self.bus, self.settings, site, lambda: self.sockets.bound["default"])
        self.lines: list[str] = []
        self.bus.subscribe("log", lambda message, level: self.lines.append(message))
        for plugin in (self.sockets, self.server):
            plugin.subscribe()

    @property
    def address(self) -> str:
        return self.sockets.bound["default"][0].name

    def client(self) -> Any:
        return contextlib.closing(Client(self.address))

    def wait_until_it_stops(self) -> None:
        """Wait for what tells the threads of the server: the state of the bus has changed a little before."""
        assert select.select([self.server._stop], [], [], DEADLINE)[0]

    def exit(self, within: float = DEADLINE) -> None:
        begun = time.monotonic()
        self.bus.exit()
        assert time.monotonic() - begun < within


def requests_of(served: Served) -> set[str]:
    """Return the requests that are being answered, or wait for that."""
    return {exchange.request for exchange in served.server._exchanges()}


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers, which must have left no thread and no descriptor when the test ends."""
    gate.reached.clear()
    gate.opened.clear()
    Bus().wait_for(lambda: True)  # which opens the pipe that the main thread sleeps on
    before = threads()
    opened = descriptors(os.getpid())

    def start(*binds: str, **options: Any) -> Served:
        served = Served(*(binds or ("127.0.0.1:0",)), **options)
        served.bus.start()
        return served

    yield start
    while buses:
        bus = buses.pop()
        if bus.state is not bus.states.EXITING:
            bus.exit()
    await_value(lambda: {name for name in threads() - before if not name.startswith("Client")}, set())
    await_that(lambda: descriptors(os.getpid()) <= opened)  # those of earlier tests may end meanwhile


def test_one_connection_carries_many_requests(serve: Serve) -> None:
    served = serve()
    port = served.address.partition(":")[2]
    with served.client() as client:
        for path in ("/a", "/b"):
            assert client.ask(path) == (200, f"GET {path} {port} 127.0.0.1")
        assert client.ask("/c", b"x" * 2_000_000) == (200, f"POST /c {port} 127.0.0.1")  # which it ignores
        assert client.ask("/d", method="HEAD") == (200, "")
        sock = client.sock
        assert client.ask("/e")[0] == 200
        assert client.sock is sock


@pytest.mark.parametrize(
    ("bind", "expected"),
    [("[::1]:0", "::1"), ("unix", "80 ")],
)
def test_it_serves_on_other_sockets_than_those_of_ipv4(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bind: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if bind == "unix":
        served = Served(f"unix:{tmp_path}/s")
        served.bus.start()
    else:
        served = serve(bind)
    with served.client() as client:
        status, body = client.ask("/")
    served.exit()

    assert status == 200
    assert body.endswith(expected)


def test_idle_connections_do_not_hold_up_a_stop(serve: Serve) -> None:
    served = serve()
    with connect(served.address) as silent, served.client() as idle:
        idle.ask("/")
        served.exit(within=10)

        assert read_to_end(silent) == b""
        assert read_to_end(idle.sock) == b""


def test_in_development_an_idle_connection_does_not_hold_up_a_stop_although_it_was_just_answered(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.servers.threaded.server.KEEP_ALIVE", DEADLINE)
    served = Served("127.0.0.1:0")
    served.server.site = replace(served.server.site, time_for_requests=DEADLINE)
    served.bus.start()
    with served.client() as idle:
        idle.ask("/")
        served.exit(within=10)

        assert read_to_end(idle.sock) == b""


def test_in_development_a_request_that_takes_too_long_is_cut_off_which_is_no_failure(serve: Serve) -> None:
    served = serve()
    served.server.site = replace(served.server.site, time_for_requests=0.1)
    with connect(served.address) as sock:
        sock.sendall(REQUEST % b"/held")
        assert gate.reached.wait(DEADLINE)
        served.exit(within=10)
        assert not served.bus.failed
        assert read_to_end(sock) == b""
        gate.opened.set()
    await_that(lambda: not served.server._exchanges())
    served.server._stop.close()
    assert any(re.search(r"requests cut off after 0\.\d+ seconds: GET /held", line) for line in served.lines)


def test_connections_that_wait_in_the_queue_are_answered_when_it_stops(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.servers.threaded.server.LONGEST_ACCEPT", DEADLINE)
    served = serve()
    served.bus.stop()
    with contextlib.ExitStack() as stack:
        queued = [stack.enter_context(connect(served.address)) for _ in range(10)]
        for sock in queued:
            sock.sendall(REQUEST % b"/")
        served.bus.start()
        served.bus.exit()
        answers = [read_to_end(sock) for sock in queued]

    assert len(answers) == 10
    assert [answer.split()[1] for answer in answers] == [b"200"] * 10


def test_requests_sent_together_are_answered_when_it_stops_and_the_last_says_so(
    serve: Serve, later: Later
) -> None:
    served = serve()
    with connect(served.address) as sock:
        sock.sendall(b"".join(REQUEST % path for path in (b"/held", b"/b", b"/c")))
        assert gate.reached.wait(DEADLINE)
        exited = later(served.bus.exit)
        served.wait_until_it_stops()
        gate.opened.set()
        answers = read_to_end(sock)
        exited.result()

    assert answers.count(b"200 OK") == 3
    assert answers.count(b"Connection: close") == 1
    assert answers.rindex(b"Connection: close") > answers.index(b"/b")


@pytest.mark.parametrize("threading", [True, False], ids=["threads", "in turn"])
def test_a_client_that_has_just_connected_may_still_ask_when_it_stops(
    serve: Serve, later: Later, monkeypatch: pytest.MonkeyPatch, threading: bool
) -> None:
    for module in ("server", "request_handler"):
        monkeypatch.setattr(f"django_wspbus.servers.threaded.{module}.LAST_CHANCE", DEADLINE)
    served = serve(threading=threading)
    with connect(served.address) as sock:
        exited = later(served.bus.exit)
        served.wait_until_it_stops()
        sock.sendall(REQUEST % b"/")
        answer = read_to_end(sock)
        exited.result()

    assert b"200 OK" in answer
    assert b"Connection: close" in answer


def test_clients_that_break_off_harm_no_other_client(serve: Serve) -> None:
    served = serve()
    reset = struct.pack("ii", 1, 0)
    for data in (b"", b"GET /held HT", REQUEST % b"/held"):
        with connect(served.address) as sock:
            sock.sendall(data)
            if data.endswith(b"\n"):
                assert gate.reached.wait(DEADLINE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    gate.opened.set()
    with served.client() as idle:
        idle.ask("/")
        idle.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    with served.client() as client:
        assert client.ask("/")[0] == 200

    served.exit(within=10)


def test_what_is_no_request_is_refused(serve: Serve) -> None:
    served = serve()
    for line, status in ((b"GET /%s HTTP/1.1" % (b"x" * 70_000), b"414"), (b"nonsense", b"400")):
        with connect(served.address) as sock:
            sock.sendall(line + b"\r\n\r\n")
            assert status in sock.recv(65536)


def test_requests_that_do_not_end_are_named_when_time_is_up(serve: Serve, later: Later) -> None:
    served = serve(stop_timeout=0.5)
    with connect(served.address) as held, connect(served.address) as half:
        held.sendall(REQUEST % b"/held")
        half.sendall(b"GET / HT")
        assert gate.reached.wait(DEADLINE)
        await_value(lambda: requests_of(served), {"GET /held", "a request that has not come in full"})
        served.bus.exit()
        gate.opened.set()
        half.close()
        assert b"200 OK" in read_to_end(held)
    await_that(lambda: not served.server._exchanges())
    served.server._stop.close()

    (line,) = [line for line in served.lines if "requests cut off" in line]
    assert re.search(
        "'default': requests cut off after [0-9.]+ seconds: GET /held, a request that has not", line
    )
    assert served.bus.failed


def test_a_request_is_in_flight_until_the_last_byte_of_its_response(serve: Serve, later: Later) -> None:
    served = serve()
    with served.client() as client, served.client() as idle, connect(served.address) as half:
        idle.ask("/")
        half.sendall(b"GET /half HTTP/1.1\r\n")
        answer = later(client.ask, "/str%65am?token=secret")
        assert gate.reached.wait(DEADLINE)
        await_that(lambda: len(served.server.in_flight()) == 1)  # that of the idle client has ended
        (request,) = served.server.in_flight()
        assert request.name == "GET /stream"
        assert request.started <= request.progressed <= time.monotonic()
        assert request.thread in {thread.ident for thread in threading.enumerate()}
        gate.opened.set()
        assert answer.result(DEADLINE) == (200, "firstlast")
        await_value(served.server.in_flight, [])


def test_a_request_whose_view_exits_the_bus_is_answered(serve: Serve, later: Later) -> None:
    served = serve()
    with served.client() as client, served.client() as other:
        held = later(other.ask, "/held")
        assert gate.reached.wait(DEADLINE)
        answer = later(client.ask, "/exit")
        served.wait_until_it_stops()
        gate.opened.set()
        served.bus.block()

        assert served.server._exchanges() == []
        assert answer.result()[0] == 200
        assert held.result()[0] == 200
    served.server._stop.close()


@pytest.mark.parametrize("threading", [True, False], ids=["threads", "in turn"])
def test_it_starts_and_stops_again_and_again_with_nothing_left_open(serve: Serve, threading: bool) -> None:
    served = serve("127.0.0.1:0", "[::1]:0", threading=threading)
    served.bus.stop()
    opened, before = descriptors(os.getpid()), threads()
    for _ in range(10):
        served.bus.start()
        served.server.start()  # has no effect
        for bound in served.sockets.bound["default"]:
            with contextlib.closing(Client(bound.name)) as client:
                assert client.ask("/")[0] == 200
        with connect(served.address):  # of a client that has not asked
            served.bus.stop()
        served.server.stop()  # likewise
        await_that(lambda: descriptors(os.getpid()) <= opened and threads() <= before)


def test_without_a_free_descriptor_it_waits_for_one(serve: Serve) -> None:
    served = serve()
    with served.client() as client:
        assert client.ask("/")[0] == 200
        with socket.socket() as waiting:
            waiting.settimeout(DEADLINE)
            host, _, port = served.address.partition(":")
            with no_descriptor():
                waiting.connect((host, int(port)))
                waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert client.ask("/")[0] == 200  # a connected client is served
            assert b"200 OK" in read_to_end(waiting)


def test_without_a_thread_to_be_had_a_connection_is_lost_and_no_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve()

    def refuse(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(HTTPServer, "process_request", refuse)
        with connect(served.address) as lost:
            assert read_to_end(lost) == b""
    with served.client() as client:
        assert client.ask("/")[0] == 200
    assert "can't start new thread" in capsys.readouterr().err


# One thread for all: OPTIONS {"threading": False}


@pytest.fixture
def in_turn(serve: Serve) -> Serve:
    """Start servers that answer one request at a time."""
    served_in.clear()
    return partial(serve, threading=False)


def test_in_turn_all_requests_of_all_its_sockets_are_served_by_one_thread(in_turn: Serve) -> None:
    served = in_turn("127.0.0.1:0", "[::1]:0")
    for bound in served.sockets.bound["default"]:
        for _ in range(2):
            with contextlib.closing(Client(bound.name)) as client:
                assert client.ask("/", b"x" * 200_000)[0] == 200
                sock = client.sock
                assert client.ask("/")[0] == 200
                assert client.sock is sock

    assert len(served_in) == 8
    assert len(set(served_in)) == 1


def test_in_turn_clients_that_send_nothing_or_leave_delay_no_other_client(in_turn: Serve) -> None:
    served = in_turn()
    reset = struct.pack("ii", 1, 0)
    with contextlib.ExitStack() as stack:
        silent, half, left, broken = (stack.enter_context(connect(served.address)) for _ in range(4))
        half.sendall(b"GET / HTTP/1.1\r\n")
        left.close()
        broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        broken.close()
        for _ in range(2):
            with served.client() as client:
                assert client.ask("/")[0] == 200
        half.close()
        served.exit(within=10)
        assert read_to_end(silent) == b""


def test_in_turn_a_request_waits_for_the_one_before_it(in_turn: Serve, later: Later) -> None:
    served = in_turn()
    with served.client() as first, served.client() as second:
        held = later(first.ask, "/held")
        assert gate.reached.wait(DEADLINE)
        waiting = later(second.ask, "/next")
        await_value(lambda: requests_of(served), {"GET /held", "GET /next (waiting for its turn)"})
        assert len(served_in) == 1
        gate.opened.set()

        assert held.result()[0] == 200
        assert waiting.result()[0] == 200
    assert len(set(served_in)) == 1


def test_in_turn_what_is_in_flight_waits_or_is_queued_is_answered_when_it_stops(
    in_turn: Serve, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.servers.threaded.server.LONGEST_ACCEPT", DEADLINE)
    served = in_turn()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(served.address)) for _ in range(10)]
        socks[0].sendall(REQUEST % b"/held")
        assert gate.reached.wait(DEADLINE)
        for sock in socks[1:]:
            sock.sendall(REQUEST % b"/")
        silent = stack.enter_context(connect(served.address))
        exited = later(served.bus.exit)
        await_that(lambda: served.server._thread is None)
        assert read_to_end(silent) == b""
        gate.opened.set()
        answers = [read_to_end(sock) for sock in socks]
        exited.result()

    assert [answer.split()[1] for answer in answers] == [b"200"] * 10


def test_in_turn_what_has_no_turn_before_time_is_up_is_named(in_turn: Serve, later: Later) -> None:
    served = in_turn(stop_timeout=0.5)
    with connect(served.address) as held, connect(served.address) as waiting:
        held.sendall(REQUEST % b"/held")
        assert gate.reached.wait(DEADLINE)
        waiting.sendall(REQUEST % b"/")
        await_value(lambda: requests_of(served), {"GET /held", "GET / (waiting for its turn)"})
        served.bus.exit()
        gate.opened.set()
        assert b"200 OK" in read_to_end(held)
        assert b"200 OK" in read_to_end(waiting)
    await_that(lambda: not served.server._exchanges())
    served.server._stop.close()

    (line,) = [line for line in served.lines if "requests cut off" in line]
    assert line.endswith("seconds: GET / (waiting for its turn), GET /held.")


def test_in_turn_a_request_whose_view_exits_the_bus_is_answered_and_so_are_those_that_wait(
    in_turn: Serve, later: Later
) -> None:
    served = in_turn()
    with served.client() as first, served.client() as exiting, served.client() as last:
        held = later(first.ask, "/held")
        assert gate.reached.wait(DEADLINE)
        answers = []
        for client, path in ((exiting, "/exit"), (last, "/")):
            answers.append(later(client.ask, path))
            waiting = f"GET {path} (waiting for its turn)"
            await_that(lambda waiting=waiting: waiting in requests_of(served))
        gate.opened.set()
        served.bus.block()
        assert [answer.result()[0] for answer in (held, *answers)] == [200] * 3
    served.server._stop.close()


def test_in_turn_a_view_that_raises_system_exit_does_not_end_the_thread(in_turn: Serve) -> None:
    served = in_turn(application=f"{__name__}.leaving")
    for _ in range(2):
        with served.client() as client:
            assert client.ask("/")[0] == 500
    assert len(served_in) == 2
    assert len(set(served_in)) == 1


def test_in_turn_a_connection_to_a_database_lasts_as_long_as_the_thread(
    in_turn: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    monkeypatch.setattr(connections, "close_all", lambda: closed.append(threading.get_ident()))
    served = in_turn()
    for _ in range(2):
        with served.client() as client:
            assert client.ask("/")[0] == 200
    assert served_in[0] not in closed  # the threads of the connections close theirs, of which there are none
    served.exit()

    await_that(lambda: served_in[0] in closed)


# Options


def test_it_has_two_options() -> None:
    found = {}
    for options in (
        *({"backlog": 5, "threading": False}, {"threading": True}),
        *({"backlog": 0}, {"backlog": True}, {"threading": 0}, {"workers": 2}),
    ):
        settings = ServerSettings(
            alias="shop", backend=THREADED, bind=(), application=None, mounts={}, options=options
        )
        found[str(options)] = [problem.path for problem in ThreadedServer.check_options(settings)]

    here = 'WSPBUS["SERVERS"]["shop"]["OPTIONS"]'
    assert list(found.values()) == [
        *([], []),
        [f'{here}["backlog"]'],
        [f'{here}["backlog"]'],
        [f'{here}["threading"]'],
        [f'{here}["workers"]'],
    ]
