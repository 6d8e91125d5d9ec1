"""The server of the control socket: requests in their own threads, and clients that do not behave."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from django_wspbus.control import address
from django_wspbus.control import server as server_module
from django_wspbus.control.calls import MOST_CALLS, Call, ClientGone
from django_wspbus.control.protocol import Request
from django_wspbus.control.server import MOST_CONNECTIONS, ControlServer
from django_wspbus.wspbus import Refusal

from ..descriptors import no_descriptor
from ..processes import DEADLINE
from .conftest import replies, request


def test_an_action_gets_its_arguments_and_its_result_ends_the_connection(serve: Any) -> None:
    served = serve({"add": lambda call: call.arguments["one"] + call.argument("other", int, 5)})
    assert served.exchange(request("add", one=1, other=2)) == [{"result": 3}]
    assert served.ask("add", one=1) == {"result": 6}
    assert served.ask("add", one=1, other=True) == {
        "error": "add needs 'other', of the type int.",
        "status": 2,
    }


def test_steps_and_records_come_when_they_are_sent(serve: Any) -> None:
    released = threading.Event()

    def work(call: Call) -> str:
        call.step("booting")
        released.wait(DEADLINE)
        call.record({"text": "one"})
        return "done"

    served = serve({"work": work})
    with served.connect() as client:
        client.sendall(request("work"))
        assert client.recv(100) == b'{"step": "booting"}\n'
        released.set()
        assert replies(client) == [{"record": {"text": "one"}}, {"result": "done"}]


def test_an_action_that_fails_gives_its_reason_and_the_server_goes_on(serve: Any) -> None:
    def fail(error: BaseException) -> Any:
        raise error

    served = serve(
        {
            "refuse": lambda call: fail(Refusal("Not now.", status=70)),
            "break": lambda call: fail(RuntimeError("The site exits.")),
            "divide": lambda call: 1 / 0,
            "leave": lambda call: fail(SystemExit(3)),
            "set": lambda call: {1},
            "large": lambda call: "x" * 2**24,
        }
    )
    assert served.ask("refuse") == {"error": "Not now.", "status": 1}
    assert served.ask("break") == {"error": "The site exits.", "status": 1}
    assert served.failures == []
    assert "ZeroDivisionError" in served.ask("divide")["error"]
    assert "SystemExit: 3" in served.ask("leave")["error"]
    assert served.failures == ["divide", "leave"]
    assert "cannot be sent: Object of type set" in served.ask("set")["error"]
    assert "16,777,216 bytes" in served.ask("large")["error"]
    assert served.ask("nonsense") == {
        "error": "The site does not know the action 'nonsense'. "
        "It knows: break, divide, large, leave, refuse, set.",
        "status": 2,
    }


def test_a_client_that_has_closed_half_of_the_connection_reads_the_replies(serve: Any) -> None:
    served = serve({"here": lambda call: not call.is_gone})
    with served.connect() as client:
        client.sendall(request("here"))
        client.shutdown(1)
        assert replies(client) == [{"result": True}]


def test_an_action_notices_that_its_client_has_gone(serve: Any) -> None:
    began, ended = threading.Event(), threading.Event()
    noticed = []

    def follow(call: Call) -> None:
        began.set()
        noticed.append(call.wait_until_gone(DEADLINE))
        try:
            call.step("any")
        except ClientGone as error:
            noticed.append(type(error))
            raise
        finally:
            ended.set()

    served = serve({"follow": follow})
    with served.connect() as client:
        client.sendall(request("follow"))
        assert began.wait(DEADLINE)
    assert ended.wait(DEADLINE)
    assert noticed == [True, ClientGone]
    assert served.failures == []


def test_more_requests_than_threads_are_told_that_the_site_is_busy(serve: Any) -> None:
    released, running = threading.Event(), threading.Semaphore(0)

    def wait(call: Call) -> str:
        running.release()
        released.wait(DEADLINE)
        return "done"

    served = serve({"wait": wait, "ping": lambda call: "alive", "logs": lambda call: "record"})
    clients = [served.connect() for _ in range(MOST_CALLS)]
    for client in clients:
        client.sendall(request("wait"))
    for _ in clients:
        assert running.acquire(timeout=DEADLINE)
    assert "busy" in served.ask("wait")["error"]
    assert "busy" in served.ask("logs")["error"]
    assert served.ask("ping") == {"result": "alive"}  # else a client would take the site for dead
    assert served.ask("logs", follow=True) == {"result": "record"}
    released.set()
    for client in clients:
        with client:
            assert replies(client) == [{"result": "done"}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\n", "no JSON"),
        (b"GET / HTTP/1.1\r\n\r\n", "no JSON"),
        (b"[1]\n", "no JSON object"),
        (b"[" * 65_000 + b"\n", "no JSON"),
        (b'{"version": 1}\n', "names no action"),
        (b'{"version": 1, "action": "a", "arguments": []}\n', "no object"),
        (b'{"version": 2, "action": "a"}\n', "version 2, and this site knows version 1"),
        (b"x" * 70_000, "more than 65,536 bytes"),
    ],
    ids=["empty", "http", "list", "deep", "nameless", "arguments", "version", "huge"],
)
def test_a_malformed_request_gets_the_reason(serve: Any, data: bytes, reason: str) -> None:
    served = serve({"hello": lambda call: "hello"})
    (reply,) = served.exchange(data)
    assert reason in reply["error"]
    assert reply["status"] == 2
    assert served.ask("hello") == {"result": "hello"}
    assert served.failures == []


def test_half_a_request_and_none_end_in_time(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT", 2)
    served = serve({"hello": lambda call: "hello"})
    with served.connect() as slow, served.connect() as half:
        slow.sendall(b'{"version": 1,')
        half.sendall(b'{"version": 1,')
        half.shutdown(1)
        assert "does not end with a newline" in replies(half)[0]["error"]
        assert "no request came within 2 seconds" in replies(slow)[0]["error"]


def test_idle_connections_do_not_keep_a_client_out(serve: Any) -> None:
    served = serve({"hello": lambda call: "hello"})
    idle = [served.connect() for _ in range(MOST_CONNECTIONS + 20)]
    assert served.ask("hello") == {"result": "hello"}
    for client in idle:
        client.close()
    assert served.ask("hello") == {"result": "hello"}
    assert served.failures == []


def test_an_error_of_the_server_is_reported_and_it_goes_on() -> None:
    begun, failures = threading.Event(), threading.Semaphore(0)

    def begin(request: Request, connection: Any) -> None:
        connection.close()
        if request.action == "fails":
            raise ZeroDivisionError
        begun.set()

    listener, name = address.listen(1)
    server = ControlServer(listener, begin, failures.release)
    thread = threading.Thread(target=server.run, name="Server")
    thread.start()
    with listener:
        for action in ("fails", "works"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(name.address)
                client.sendall(request(action))
                assert replies(client) == []
        assert begun.wait(DEADLINE)
        assert failures.acquire(timeout=DEADLINE)
        server.end()
        thread.join(DEADLINE)
    assert not thread.is_alive()


def test_without_a_free_descriptor_one_client_after_another_is_answered(serve: Any) -> None:
    served = serve({"hello": lambda call: "hello"})
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with no_descriptor():
        for client in clients:
            client.settimeout(DEADLINE)
            client.connect(served.name.address)
            client.sendall(request("hello"))
            assert replies(client) == [{"result": "hello"}]
    for client in clients:
        client.close()
    assert served.failures == []


def test_without_a_free_descriptor_an_idle_client_makes_room(serve: Any) -> None:
    served = serve({"hello": lambda call: "hello"})
    with socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_UNIX) as client, no_descriptor():
        for each in (idle, client):
            each.settimeout(DEADLINE)
            each.connect(served.name.address)
        assert idle.recv(1) == b""
        client.sendall(request("hello"))
        assert replies(client) == [{"result": "hello"}]
    assert served.failures == []


def test_a_client_waits_for_a_descriptor_that_a_request_has(serve: Any) -> None:
    running, released = threading.Event(), threading.Event()

    def wait(call: Call) -> str:
        running.set()
        released.wait(DEADLINE)
        return "done"

    served = serve({"wait": wait, "hello": lambda call: "hello"})
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for each in (first, second):
            each.settimeout(DEADLINE)
        with no_descriptor():
            first.connect(served.name.address)
            first.sendall(request("wait"))
            assert running.wait(DEADLINE)
            second.connect(served.name.address)
            second.sendall(request("hello"))
            second.settimeout(0.2)
            with pytest.raises(TimeoutError):
                second.recv(1)
            second.settimeout(DEADLINE)
            released.set()
            assert replies(first) == [{"result": "done"}]
            assert replies(second) == [{"result": "hello"}]
    assert served.failures == []
