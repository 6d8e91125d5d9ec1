"""Late clients, still in a queue when no server accepts any more, get an answer and are not reset."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from django_wspbus.sockets.late_clients import ANSWER, turn_away
from django_wspbus.sockets.queue import queue_length
from tests.processes import DEADLINE
from tests.projects import Project

from ..servers.clients import connect, is_free, read_to_end
from ..servers.conftest import GUNICORN, KINDS, Later, configure, release
from ..servers.conftest import address_of as address_in_banner
from ..servers.load import await_that, await_value
from .clients import INET, REQUEST, SOON, Bind, Clients, address_of, ask, forbid_filters, needs_filters


@pytest.mark.parametrize("address", [*INET, "unix"])
def test_waiting_clients_get_a_503_and_the_next_is_refused(
    bind: Bind, clients: Clients, address: str, has_filters: bool
) -> None:
    bound = bind(address)
    if not has_filters:
        forbid_filters(bound)
    where = address_of(bound)
    waiting = [clients.enter_context(connect(where)) for _ in range(4)]
    for client in waiting:
        ask(client)
    turn_away([bound])
    answers = [read_to_end(client) for client in waiting]

    assert answers == [ANSWER] * 4
    assert is_free(where)
    assert bound.socket.fileno() == -1
    head, _, body = ANSWER.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert {b"Connection: close", b"Retry-After: 1", b"Content-Length: %d" % len(body)} <= set(
        head.split(b"\r\n")
    )


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix"])
def test_an_empty_queue_is_closed_at_once(bind: Bind, address: str, has_filters: bool) -> None:
    bound = bind(address)
    if not has_filters:
        forbid_filters(bound)
    where = bound.name
    begun = time.monotonic()
    turn_away([bound], DEADLINE)

    assert time.monotonic() - begun < DEADLINE / 2
    assert is_free(where)


@pytest.mark.parametrize("address", [pytest.param("127.0.0.1:0", marks=needs_filters), "unix"])
def test_clients_that_connect_all_the_time_are_answered_or_refused_and_never_reset(
    bind: Bind, later: Later, address: str
) -> None:
    def ask_until_refused(where: str) -> list[bytes]:
        answers: list[bytes] = []
        while True:
            try:
                client = connect(where)
            except (ConnectionRefusedError, FileNotFoundError):
                return answers
            with client:
                ask(client)
                answers.append(read_to_end(client))

    for _ in range(2):
        bound = bind(address)
        bound.socket.settimeout(DEADLINE)
        asked = [later(ask_until_refused, address_of(bound)) for _ in range(4)]
        for _ in range(20):  # this is the server
            connection, _ = bound.socket.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(ANSWER)
        turn_away([bound], DEADLINE)
        answers = [answer for future in asked for answer in future.result(DEADLINE)]
        assert len(answers) >= 20
        assert set(answers) == {ANSWER}


def test_a_client_that_has_not_asked_yet_may_do_so(bind: Bind, clients: Clients, later: Later) -> None:
    bound = bind()
    client = clients.enter_context(connect(bound.name))
    turned_away = later(turn_away, [bound], DEADLINE)
    client.sendall(REQUEST[:10])
    await_value(lambda: queue_length(bound.socket), 0)  # it is accepted
    client.sendall(REQUEST[10:])

    assert read_to_end(client) == ANSWER
    client.close()
    turned_away.result(DEADLINE)


def test_silent_clients_get_no_answer_and_hold_up_no_other_for_long(bind: Bind, clients: Clients) -> None:
    bound = bind()
    silent = [clients.enter_context(connect(bound.name)) for _ in range(4)]
    asking = clients.enter_context(connect(bound.name))
    ask(asking)
    begun = time.monotonic()
    turn_away([bound], 4 * SOON)

    assert time.monotonic() - begun < DEADLINE / 2
    assert read_to_end(asking) == ANSWER
    assert [read_to_end(client) for client in silent] == [b""] * 4


def test_a_client_that_sends_a_head_without_end_is_answered(bind: Bind, clients: Clients) -> None:
    bound = bind()
    client = clients.enter_context(connect(bound.name))
    client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
    client.shutdown(socket.SHUT_WR)
    turn_away([bound], DEADLINE)

    assert read_to_end(client) == ANSWER


def test_a_body_is_taken_in_so_that_its_sender_gets_the_answer(
    bind: Bind, clients: Clients, later: Later
) -> None:
    bound = bind()
    client = clients.enter_context(connect(bound.name))
    body = b"x" * 8_000_000
    sent = later(client.sendall, b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    turned_away = later(turn_away, [bound], DEADLINE)
    sent.result(DEADLINE)

    assert read_to_end(client) == ANSWER
    client.close()
    turned_away.result(DEADLINE)


def test_clients_that_have_left_cost_no_other_an_answer(bind: Bind, clients: Clients) -> None:
    bound = bind()
    for data, linger in ((b"", 0), (REQUEST, 0), (b"", 1), (REQUEST, 1)):
        with connect(bound.name) as leaving:
            leaving.sendall(data)
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0))
    staying = clients.enter_context(connect(bound.name))
    ask(staying)
    turn_away([bound])

    assert read_to_end(staying) == ANSWER


def test_when_time_is_up_clients_that_have_asked_are_answered(bind: Bind, clients: Clients) -> None:
    bound = bind()
    where = bound.name
    waiting = [clients.enter_context(connect(where)) for _ in range(3)]
    for client in waiting:
        ask(client)
    turn_away([bound], 0)

    assert [read_to_end(client) for client in waiting] == [ANSWER] * 3
    assert is_free(where)


# Of whole sites


SUPERVISOR = """\
import os
import socket
import sys
import time

listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
for number in (1, 2):
    while not os.path.exists(f"go{number}"):
        time.sleep(0.01)
    pid = os.fork()
    if not pid:
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)  # it may have been 3 before
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    print("site", pid, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Runs one site after another on a socket that is its own, as systemd does."""


@pytest.mark.parametrize("kind", ["threaded", pytest.param("sync", marks=pytest.mark.extended)])
def test_clients_at_a_socket_of_systemd_are_served_by_this_site_or_the_next(
    shop: Project, clients: Clients, kind: str
) -> None:
    configure(shop, {"shop": {**KINDS[kind], "BIND": "systemd"}})
    shop.write("supervisor.py", SUPERVISOR)
    with shop.start("supervisor.py", shop.manage, "runbus", "-v2") as supervisor:
        address = "127.0.0.1:" + supervisor.wait_for_line(r"^port (\d+)")[1]
        release(shop, "go1")
        supervisor.wait_for_line("^Quit with")
        client = clients.enter_context(connect(address))
        client.sendall(b"GET /held/page HTTP/1.0\r\n\r\n")
        shop.expect_note("page waits")
        os.kill(int(supervisor.wait_for_line(r"^site (\d+)")[1]), signal.SIGTERM)
        supervisor.wait_for_line("Bus STOPPING")
        meanwhile = [clients.enter_context(connect(address)) for _ in range(3)]
        for each in meanwhile:
            ask(each)
        release(shop, "page")
        assert read_to_end(client).endswith(b"page answered")
        client.close()
        supervisor.wait_for_line("^ended 0$")
        between = clients.enter_context(connect(address))
        ask(between)
        release(shop, "go2")
        answers = [read_to_end(each) for each in (*meanwhile, between)]
        assert [answer.split()[1] for answer in answers] == [b"200"] * 4
        os.kill(int(supervisor.wait_for_line(r"^site (\d+)", count=2)[1]), signal.SIGTERM)
        assert supervisor.wait() == 0

    assert supervisor.lines.count("ended 0") == 2


@pytest.mark.extended
@pytest.mark.parametrize("transport", ["tcp", pytest.param("unix", marks=pytest.mark.extended)])
def test_clients_that_wait_for_a_server_that_a_restart_removes_are_turned_away(
    shop: Project, short: Path, clients: Clients, transport: str
) -> None:
    bind = "127.0.0.1:0" if transport == "tcp" else f"unix:{short}/gone.sock"
    kept = {"kept": KINDS["threaded"]}
    configure(shop, {**kept, "gone": {"BACKEND": GUNICORN, "BIND": bind}})
    with shop.serve("-v2") as site:
        address = address_in_banner(site, "gone")
        busy = clients.enter_context(connect(address))
        busy.sendall(b"GET /held/page HTTP/1.0\r\n\r\n")
        shop.expect_note("page waits")
        waiting = [clients.enter_context(connect(address)) for _ in range(3)]
        for each in waiting:
            ask(each)
        configure(shop, kept)
        site.send(signal.SIGUSR2)
        site.wait_for_line("^Quit with", count=2)
        answers = [read_to_end(each) for each in waiting]
        release(shop, "page")
        assert read_to_end(busy).endswith(b"page answered")
        busy.close()
        await_that(lambda: len(site.members()) == 1, site.members)
        assert is_free(address)
        assert site.stop() == 0

    assert answers == [ANSWER] * 3
