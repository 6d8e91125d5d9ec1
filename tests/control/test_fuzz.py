"""Whatever clients send, the server of the control socket goes on, and answers those that behave."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_wspbus.control import server
from django_wspbus.control.address import read_line
from django_wspbus.control.protocol import (
    LARGEST_REQUEST,
    Entry,
    Error,
    Malformed,
    Request,
    Result,
    Step,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

from ..processes import DEADLINE
from .conftest import Served, replies, request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)
REPLIES = st.one_of(
    st.builds(Step, st.text()),
    st.builds(Entry, OBJECTS),
    st.builds(Result, JSON),
    st.builds(Error, st.text(), st.integers(0, 255)),
)
ALMOST_REQUESTS = st.fixed_dictionaries(
    {}, optional={"version": JSON | st.just(1), "action": JSON | st.just("hello"), "arguments": JSON}
).map(lambda values: json.dumps(values).encode() + b"\n")

DATA = st.one_of(
    st.binary(max_size=300),
    ALMOST_REQUESTS,
    st.builds(request, st.text()),
    st.integers(LARGEST_REQUEST - 2, 3 * LARGEST_REQUEST).map(lambda size: b"x" * size),
    st.integers(1, 60_000).map(lambda size: b"[" * size + b"\n"),
)


QUICK = settings(max_examples=40, deadline=None)


@QUICK
@given(st.binary())
@example(b"[" * 60_000)
@example(b'{"version": 1' + b"0" * 60_000 + b"}")
def test_any_bytes_are_a_request_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(decode_request(data), Request)
    with contextlib.suppress(Malformed):
        assert isinstance(decode_reply(data), Step | Entry | Result | Error)


@QUICK
@given(st.text(), OBJECTS)
def test_a_request_arrives_as_it_was_sent(action: str, arguments: dict[str, Any]) -> None:
    line = encode_request(Request(action, arguments))
    assert line.count(b"\n") == 1
    assert decode_request(line) == Request(action, arguments)


@QUICK
@given(REPLIES)
def test_a_reply_arrives_as_it_was_sent(reply: Any) -> None:
    line = encode_reply(reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == reply


@QUICK
@given(st.text())
@example("0000: 00000002 00000000 00010000 0001 01 1 @django-wspbus/x/y/z")
@example("Num       RefCount Protocol Flags    Type St Inode Path")
def test_any_line_of_the_list_of_sockets_is_read(line: str) -> None:
    assert read_line(line) is None


@pytest.fixture(scope="module")
def served() -> Any:
    table = {"hello": lambda call: "hello", "add": lambda call: call.arguments["a"] + 1}
    with pytest.MonkeyPatch.context() as patch, Served(table, 2) as served:
        patch.setattr(server, "REQUEST_TIMEOUT", DEADLINE)  # no client that behaves is too slow
        yield served


@pytest.mark.extended
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(DATA, max_size=4), st.sampled_from(["read", "close", "half", "leave"])), max_size=8
    )
)
def test_clients_that_do_not_behave_keep_nobody_out(served: Served, clients: list[Any]) -> None:
    connections = []
    for chunks, end in clients:
        connection = served.connect()
        connections.append(connection)
        with contextlib.suppress(OSError):  # the server has refused it already
            for chunk in chunks:
                connection.sendall(chunk)
            if end == "half":
                connection.shutdown(socket.SHUT_WR)
        if end == "close":
            connection.close()
    assert served.ask("hello") == {"result": "hello"}
    for connection, (chunks, end) in zip(connections, clients, strict=True):
        if end == "half" and any(chunks):
            with contextlib.suppress(ConnectionError):
                assert all(isinstance(reply, dict) for reply in replies(connection))
        connection.close()
    assert served.ask("hello") == {"result": "hello"}
    assert set(served.failures) <= {"add"}
