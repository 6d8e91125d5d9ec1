"""The threaded server and what clients, and attackers, send: no body is ever taken for a request."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.processes import DEADLINE

from ..clients import connect, read_to_end
from .test_server import Served

NEXT = b"GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"

served: list[str] = []


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    served.append(f"{environ['REQUEST_METHOD']} {path}")
    body = environ["wsgi.input"].read() if path != "/unread" else b"unread"
    if path == "/environ":
        body = repr(sorted(name for name in environ if name.startswith("HTTP_"))).encode()
    elif path == "/host":
        body = environ["HTTP_HOST"].encode()
    status = "204 No Content" if path == "/none" else "200 OK"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    if path == "/breaks":
        return broken(body)
    return [body]


def broken(body: bytes) -> Iterator[bytes]:
    yield body[:1]
    raise RuntimeError("on purpose")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = Served("127.0.0.1:0", application=f"{__name__}.application")
    server.bus.start()
    yield server.address
    server.bus.exit()


@pytest.fixture
def ask(address: str) -> Callable[[bytes], bytes]:
    """Return a function that sends bytes, and returns what is answered until the server closes."""
    served.clear()

    def ask(data: bytes) -> bytes:
        with connect(address) as sock:
            sock.sendall(data)
            return read_to_end(sock)

    return ask


def post(*fields: bytes, version: bytes = b"1.1") -> bytes:
    return (
        b"POST /echo HTTP/"
        + version
        + b"\r\nHost: shop\r\n"
        + b"".join(f + b"\r\n" for f in fields)
        + b"\r\n"
    )


REFUSED = {
    "chunked": (post(b"Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(NEXT), NEXT), 411),
    "chunked by HTTP/1.0": (post(b"Transfer-Encoding: chunked", version=b"1.0") + b"0\r\n\r\n", 411),
    "another coding": (post(b"Transfer-Encoding: gzip, chunked") + NEXT, 501),
    "two codings": (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + NEXT, 501),
    "a length and chunked": (post(b"Content-Length: 5", b"Transfer-Encoding: chunked") + NEXT, 400),
    "two lengths": (post(b"Content-Length: 0", b"Content-Length: %d" % len(NEXT)) + NEXT, 400),
    "two lengths in one": (post(b"Content-Length: 0, %d" % len(NEXT)) + NEXT, 400),
    "no digit": (post(b"Content-Length: x") + NEXT, 400),
    "no length": (post(b"Content-Length:") + NEXT, 400),
    "a sign": (post(b"Content-Length: +%d" % len(NEXT)) + NEXT, 400),
    "below 0": (post(b"Content-Length: -1") + NEXT, 400),
    "an underscore": (post(b"Content-Length: 3_8") + NEXT, 400),
    "hexadecimal": (post(b"Content-Length: 0x26") + NEXT, 400),
    "a space within": (post(b"Content-Length: 3 8") + NEXT, 400),
    "digits of another script": (post("Content-Length: \u00b2".encode("latin-1")) + NEXT, 400),
    "more digits than Python takes": (post(b"Content-Length: " + b"9" * 5000) + NEXT, 400),
    "a space before the colon": (post(b"Content-Length : %d" % len(NEXT)) + NEXT, 400),
    "a folded line": (post(b"X-Note: a", b" Content-Length: 3") + NEXT, 400),
    "a line without a colon": (post(b"X-Note", b"Content-Length: %d" % len(NEXT)) + NEXT, 400),
    "a bare carriage return": (post(b"X-Note: a\rContent-Length: %d" % len(NEXT)) + NEXT, 400),
    "a NUL": (post(b"X-Note: \0") + NEXT, 400),
    "a NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: shop\r\n\r\n" + NEXT, 400),
    "a carriage return in the target": (b"GET /\rX: HTTP/1.1\r\nHost: shop\r\n\r\n" + NEXT, 400),
    "a long line": (post(b"X-Note: " + b"x" * 70_000) + NEXT, 431),
    "many lines": (post(*[b"X-Note: a"] * 101) + NEXT, 431),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NEXT, 505),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_a_request_of_doubtful_length_is_refused_and_its_connection_closed(
    ask: Callable[[bytes], bytes], data: bytes, status: int
) -> None:
    answer = ask(data)

    assert answer.split()[1] == str(status).encode()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in answer
    assert served == []


def test_a_refused_request_on_a_kept_alive_connection_is_the_last(ask: Callable[[bytes], bytes]) -> None:
    answer = ask(post(b"Content-Length: 2") + b"ok" + REFUSED["chunked"][0] + NEXT)

    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"411"]
    assert served == ["POST /echo"]


def test_a_client_that_waits_for_leave_to_send_chunks_gets_none(ask: Callable[[bytes], bytes]) -> None:
    answer = ask(post(b"Transfer-Encoding: chunked", b"Expect: 100-continue"))

    assert answer.startswith(b"HTTP/1.1 411 ")


def test_the_answer_to_a_refused_upload_is_not_lost(
    ask: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.servers.threaded.request_handler.KEEP_ALIVE", DEADLINE)
    chunk = b"%x\r\n%s\r\n" % (100_000, b"x" * 100_000)
    answer = ask(post(b"Transfer-Encoding: chunked") + chunk * 20)

    assert answer.startswith(b"HTTP/1.1 411 ")


ANSWERED = {
    "a length": (post(b"Content-Length: 5") + b"hello", ["POST /echo"], b"hello"),
    "a length among spaces": (post(b"Content-Length: \t 5 \t") + b"hello", ["POST /echo"], b"hello"),
    "lines without carriage returns": (
        b"POST /echo HTTP/1.1\nHost: shop\nContent-Length: 5\n\nhello",
        ["POST /echo"],
        b"hello",
    ),
    "one line more": (post(b"Content-Length: 5") + b"hello\r\n", ["POST /echo"], b"hello"),
    "a body that is left": (
        b"POST /unread HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n%s" % (len(NEXT), NEXT),
        ["POST /unread"],
        b"unread",
    ),
    "a body of GET": (
        b"GET /unread HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n%s" % (len(NEXT), NEXT),
        ["GET /unread"],
        b"unread",
    ),
    "leave to go on": (
        post(b"Content-Length: 5", b"Expect: 100-continue") + b"hello",
        ["POST /echo"],
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ),
    "an answer to HEAD": (
        b"HEAD /unread HTTP/1.1\r\nHost: shop\r\n\r\n",
        ["HEAD /unread"],
        b"Content-Length: 6",
    ),
    "the whole of an address": (
        b"GET http://other:81/host HTTP/1.1\r\nHost: shop\r\n\r\n",
        ["GET /host"],
        b"other:81",
    ),
    "names with an underscore": (
        b"GET /environ HTTP/1.1\r\nHost: shop\r\nX-Real: 1\r\nX_Forged: 1\r\nContent_Length: 9\r\n\r\n",
        ["GET /environ"],
        b"['HTTP_HOST', 'HTTP_X_REAL']",
    ),
}


@pytest.mark.parametrize(("data", "paths", "found"), ANSWERED.values(), ids=ANSWERED)
def test_a_request_is_answered_and_the_next_one_begins_where_it_ends(
    ask: Callable[[bytes], bytes], data: bytes, paths: list[str], found: bytes
) -> None:
    answer = ask(data + LAST)

    assert served == [*paths, "GET /last"]
    assert found in answer
    assert answer.count(b"HTTP/1.1 200 OK") == 2


def test_an_answer_that_can_have_no_body_has_none(ask: Callable[[bytes], bytes]) -> None:
    answer = ask(b"POST /none HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello" + LAST)

    assert served == ["POST /none", "GET /last"]
    assert b"hello" not in answer


def test_after_an_answer_that_breaks_off_the_connection_is_closed(ask: Callable[[bytes], bytes]) -> None:
    request = b"POST /breaks HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello"
    answer = ask(request + NEXT)

    assert answer.endswith(b"\r\n\r\nh")
    assert served == ["POST /breaks"]


def test_more_than_a_limit_is_not_discarded(
    ask: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.servers.threaded.request_handler.MOST_UNREAD", 1000)
    request = b"POST /unread HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n"
    ask(request % 100_000 + b"x" * 100_000 + NEXT)

    assert served == ["POST /unread"]


def test_a_body_that_does_not_come_is_not_awaited_for_nothing(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.servers.threaded.response_handler.DISCARD_TIMEOUT", 0.1)
    with connect(address) as sock:
        sock.sendall(b"POST /unread HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\n")

        assert b"200 OK" in read_to_end(sock)


@pytest.mark.parametrize("data", [b"GET /half", b"GET /half HTTP/1.1\r\n", post(b"Content-Length: 5")[:-2]])
def test_a_head_that_breaks_off_is_no_request(address: str, data: bytes) -> None:
    served.clear()
    with connect(address) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(DEADLINE)

        assert read_to_end(sock) == b""
    assert served == []


def test_a_connection_of_http_1_0_is_closed_after_its_answer(
    ask: Callable[[bytes], bytes],
) -> None:
    answer = ask(b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert b"Connection: close\r\n" in answer
