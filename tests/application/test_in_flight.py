"""Requests in flight, as the record of a process shows them, and the progress of responses and clients."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from django.http import HttpResponse, StreamingHttpResponse

from django_wspbus.application.client_progress import ClientProgress, moved_bytes
from django_wspbus.application.in_flight import RequestsInFlight
from django_wspbus.process.record import Record
from tests.processes import DEADLINE


@pytest.fixture
def record() -> Iterator[Record]:
    made = Record.make(2)
    yield made
    made.close()


@pytest.fixture
def requests(record: Record) -> RequestsInFlight:
    return RequestsInFlight(record)


def environ_of(method: str, path: str, **more: Any) -> dict[str, Any]:
    """Return the environ of a request, with what every server puts into it."""
    in_wsgi = path.encode().decode("latin-1")
    return {"REQUEST_METHOD": method, "PATH_INFO": in_wsgi, "wsgi.file_wrapper": FileWrapper, **more}


def answer(application: Callable[..., Any], environ: dict[str, Any] | None = None) -> Any:
    return application(environ_of("GET", "/") if environ is None else environ, lambda status, headers: None)


def test_a_request_is_in_flight_from_its_begin_to_its_end(requests: RequestsInFlight, record: Record) -> None:
    environ = environ_of("GET", "/shop/ä", SCRIPT_NAME="/at")
    requests.begin(environ)

    (request,) = record.slots.in_flight()
    assert (request.name, request.thread) == ("GET /at/shop/ä", threading.get_ident())
    assert requests.names() == ["GET /at/shop/ä"]
    requests.end(environ)

    assert (requests.names(), record.slots.answered) == ([], 1)
    requests.end(environ)  # the hook of a server may run once more
    assert record.slots.answered == 1


def test_a_request_that_has_not_begun_does_not_end(requests: RequestsInFlight, record: Record) -> None:
    requests.end({})  # the server has refused it

    assert record.slots.answered == 0


def test_requests_of_one_thread_end_each_for_itself(requests: RequestsInFlight) -> None:
    first, second = environ_of("GET", "/first"), environ_of("GET", "/second")
    requests.begin(first)
    requests.begin(second)
    requests.end(first)

    assert requests.names() == ["GET /second"]
    requests.end(second)


def test_a_path_cannot_forge_a_line_of_the_log(requests: RequestsInFlight) -> None:
    environ = environ_of("GET", "/shop\nERROR \x1b[31m\u2028ä")
    requests.begin(environ)

    assert requests.names() == ["GET /shop\\nERROR \\x1b[31m\\u2028ä"]
    requests.end(environ)


def test_requests_for_which_no_slot_is_free_are_counted(requests: RequestsInFlight, record: Record) -> None:
    begun, over = threading.Barrier(4), threading.Barrier(4)

    def work() -> None:
        environ = environ_of("GET", "/")
        list(answer(requests.follow(lambda environ, start_response: iter([b"a"])), environ))
        begun.wait(DEADLINE)
        over.wait(DEADLINE)
        requests.end(environ)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait(DEADLINE)
    assert (len(requests.names()), record.unrecorded) == (2, 1)
    over.wait(DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)

    assert (requests.names(), record.unrecorded, record.slots.answered) == ([], 0, 2)


def test_each_chunk_of_a_stream_is_progress_and_its_end_reaches_the_response(
    requests: RequestsInFlight, record: Record
) -> None:
    closed: list[bool] = []
    response = StreamingHttpResponse(iter([b"one", b"two"]))
    response.close = lambda: closed.append(True)  # type: ignore[method-assign]
    environ = environ_of("GET", "/")
    body = answer(requests.follow(lambda environ, start_response: response), environ)
    progressed = []
    for chunk in body:
        progressed.append((chunk, next(record.slots.in_flight()).progressed))
    body.close()
    requests.end(environ)

    assert [chunk for chunk, _ in progressed] == [b"one", b"two"]
    assert progressed[0][1] < progressed[1][1]
    assert closed == [True]


MARK = object()
WHOLE: list[Any] = [HttpResponse(b"whole"), [b"whole"], (b"whole",), FileWrapper(open(__file__, "rb")), MARK]  # noqa: SIM115


@pytest.mark.parametrize("response", WHOLE, ids=lambda response: type(response).__name__)
def test_other_responses_reach_the_server_as_they_are(requests: RequestsInFlight, response: Any) -> None:
    application = requests.follow(lambda environ, start_response: response)

    assert answer(application) is response


def test_an_application_notes_its_requests_where_the_server_does_not(requests: RequestsInFlight) -> None:
    environ = environ_of("GET", "/shop")
    response = answer(requests.record(lambda environ, start_response: [b"whole"]), environ)
    assert (list(response), requests.names()) == ([b"whole"], ["GET /shop"])
    response.close()
    assert requests.names() == []

    def fail(environ: Any, start_response: Any) -> Any:
        raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError):
        answer(requests.record(fail), environ)
    assert requests.names() == []


def test_a_stream_without_close_has_none(requests: RequestsInFlight) -> None:
    body = answer(requests.follow(lambda environ, start_response: iter([b"one"])))

    assert list(body) == [b"one"]
    assert not hasattr(body, "close")


# Clients


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        served, _ = listening.accept()
        with served:
            yield client, served


def test_the_bytes_of_a_client_count_once_the_application_reads_them(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    client, served = connection
    before = moved_bytes(served)
    client.sendall(b"body")
    served.recv(1, socket.MSG_PEEK)

    assert moved_bytes(served) == before
    served.recv(4)
    assert moved_bytes(served) != before


def test_bytes_count_once_the_client_takes_them(connection: tuple[socket.socket, socket.socket]) -> None:
    client, served = connection
    served.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            served.send(b"x" * 65536)
    await_equal(lambda: moved_bytes(served))
    full = moved_bytes(served)
    client.setblocking(False)

    assert await_other(lambda: drain(client) and moved_bytes(served), full)


def drain(client: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        client.recv(2**20)
    return True


def test_a_closed_connection_makes_no_progress() -> None:
    with socket.socket() as sock:
        pass
    assert moved_bytes(sock) is None


def test_a_unix_socket_shows_what_waits_in_it() -> None:
    client, served = socket.socketpair()
    with client, served:
        before = moved_bytes(served)
        served.sendall(b"response")
        full = moved_bytes(served)
        client.recv(100)

        assert before != full != moved_bytes(served)


@pytest.mark.parametrize("moves", [True, False], ids=["bytes move", "nothing moves"])
def test_a_request_is_stuck_unless_bytes_move(
    requests: RequestsInFlight, connection: tuple[socket.socket, socket.socket], moves: bool
) -> None:
    client, served = connection
    counts: list[int] = []
    environ = environ_of("POST", "/upload", **{"gunicorn.socket": served})
    requests.begin(environ)
    progress = ClientProgress(requests, 0.2, counts.append)
    deadline = time.monotonic() + (0.6 if moves else DEADLINE)
    while time.monotonic() < deadline and not any(counts):
        if moves:
            client.sendall(b"part")
            served.recv(4)
        time.sleep(min(progress.look(), 0.04))

    assert any(counts) is not moves
    requests.end(environ)


@pytest.mark.parametrize(("seconds", "longest"), [(0, 20), (49, 20), (60, 3), (99, 3), (110, 20)])
def test_a_request_without_progress_is_looked_at_closely_before_it_is_stuck(
    requests: RequestsInFlight, record: Record, seconds: float, longest: float
) -> None:
    record.slots.writers[0].begin(1, "GET /", time.monotonic() - seconds)

    interval = ClientProgress(requests, 100, lambda count: None).look()

    assert longest / 5 < interval <= longest


def test_a_request_that_a_debugger_holds_makes_progress(requests: RequestsInFlight, record: Record) -> None:
    counts: list[int] = []
    for slot, thread in enumerate((17, 18)):
        record.slots.writers[slot].begin(thread, "GET /", time.monotonic() - 200)

    ClientProgress(requests, 100, counts.append, lambda thread: thread == 17).look()

    held, other = record.slots.in_flight()
    assert time.monotonic() - held.progressed < 100 < time.monotonic() - other.progressed
    assert counts == [1]


def await_equal(look: Callable[[], Any]) -> None:
    """Wait until two looks, one after the other, find the same."""
    deadline = time.monotonic() + DEADLINE
    before = look()
    time.sleep(0.05)
    while (now := look()) != before:
        assert time.monotonic() < deadline
        before = now
        time.sleep(0.05)


def await_other(look: Callable[[], Any], before: Any) -> bool:
    deadline = time.monotonic() + DEADLINE
    while look() == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True
