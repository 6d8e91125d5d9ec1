"""Draining: what happens to requests, waiting clients and connections when a site exits."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .clients import Client, ask, connect, hold_until_cut
from .clients import read_to_end as read
from .conftest import GUNICORN, THREADED, Later, address_of, release
from .load import VERSIONED_URLS, Load, Shop, addresses_of

KINDS: dict[str, dict[str, Any]] = {
    "threaded": {"BACKEND": THREADED},
    "sync": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1}},
    "gthread": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1, "threads": 2}},
}

# Answers with a length, so that connections may be kept, and with a note when they end.
LENGTHS = f"""\
{VERSIONED_URLS}

def kept(request):
    response = HttpResponse("kept")
    response["Content-Length"] = 4
    return response


def noted(request, name):
    def parts():
        yield "begun, "
        wait_for(name)
        note(f"{{name}} ended")
        yield "ended"

    return StreamingHttpResponse(parts())


urlpatterns += [path("kept", kept), path("noted/<name>", noted)]
"""

LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"gunicorn": {"handlers": ["console"], "level": "INFO"}},
}
"""The configuration with which gunicorn logs when it gets the signal to exit."""


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.write("shop/urls.py", LENGTHS)
    return shop


def configure(project: Project, servers: dict[str, dict[str, Any]], **site: Any) -> None:
    bound = {alias: {"BIND": "127.0.0.1:0", **server} for alias, server in servers.items()}
    project.configure(WSPBUS={"SERVERS": bound, **site}, LOGGING=LOGGING)


def send(address: str, path: str) -> socket.socket:
    """Send a request on a connection of its own."""
    sock = connect(address)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
    return sock


def read_to_end(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes, and close: gunicorn waits 2 seconds for that."""
    with sock:
        return read(sock)


def wait_until_servers_stop(site: RunningSite, count: int = 1) -> None:
    """Wait until a number of children know of the exit, which is a moment later than the site."""
    site.wait_for_line("Bus STOPPING")
    if count:
        site.wait_for_line("Handling signal: term", count=count)


# In flight and in the queue


@pytest.mark.extended
def test_more_clients_than_a_server_has_hands_are_all_answered(
    shop: Project, short: Path, later: Later
) -> None:
    counts = {"sync": 3, "gthread": 6}
    binds = {kind: ["127.0.0.1:0", f"unix:{short}/{kind}.sock"] for kind in counts}
    configure(shop, {kind: {**KINDS[kind], "BIND": bind} for kind, bind in binds.items()})
    with shop.serve("-v2") as site, contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(send(address, f"/held/{kind}"))
            for kind, count in counts.items()
            for address in addresses_of(site, kind)
            for _ in range(count)
        ]
        for kind in counts:
            shop.expect_note(f"{kind} waits")
        reading = [later(read_to_end, client) for client in clients]
        site.send(signal.SIGTERM)
        wait_until_servers_stop(site, len(counts))
        for kind in counts:
            release(shop, kind)
        answers = [future.result(DEADLINE) for future in reading]
        assert site.wait() == 0

    assert [answer.split()[1] for answer in answers] == [b"200"] * 2 * sum(counts.values())
    assert all(b" answered" in answer for answer in answers)


def test_stop_listeners_run_after_the_last_request_of_their_process(shop: Project, later: Later) -> None:
    servers = {**KINDS, "sync": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2}}}
    configure(shop, servers)
    with shop.serve("-v2") as site:
        streams = {
            f"{kind}-{when}": later(ask, address_of(site, kind), f"/noted/{kind}-{when}")
            for when in ("early", "late")
            for kind in servers
        }
        for name in streams:
            shop.expect_note(f"{name} waits")
        site.send(signal.SIGTERM)
        wait_until_servers_stop(site, 2)
        for name, stream in streams.items():
            release(shop, name)
            assert stream.result() == (200, "begun, ended")
        assert site.wait() == 0

    assert len(streams) == 6
    for name in streams:
        (ended,) = shop.notes(f"{name} ended")
        of_process = [note.event for note in shop.notes() if note.pid == ended.pid]
        assert of_process.index(f"{name} ended") < of_process.index("worker stop")


@pytest.mark.extended
def test_what_does_not_end_in_time_is_named_and_cut_off_with_what_the_delay_has_left_of_it(
    shop: Project, later: Later
) -> None:
    configure(shop, KINDS, DRAIN_DELAY=1, STOP_TIMEOUT=5)
    with shop.serve("-v2") as site:
        cut = [later(hold_until_cut, address_of(site, kind), f"/held/{kind}") for kind in KINDS]
        for kind in KINDS:
            shop.expect_note(f"{kind} waits")
        assert site.stop() == 70
        site.wait_for_members()
        for each in cut:
            each.result()

    found = re.findall(r"The server '(\w+)': (?:killed|requests cut off) after (\S+) seconds", site.output)
    assert sorted(alias for alias, _ in found) == sorted(KINDS)
    assert all(float(seconds) <= 3.5 for _, seconds in found)
    for kind in ("sync", "gthread"):
        assert re.search(rf"'{kind}'.* GET /held/{kind} \(worker \d+\)", site.output)
    assert re.search(r"'threaded'.* GET /held/threaded", site.output)


# Connections that are kept


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["gthread", "threaded"])
def test_kept_connections_get_a_last_answer_that_closes_them(shop: Project, later: Later, kind: str) -> None:
    options = {"OPTIONS": {"workers": 1, "threads": 4, "keepalive": 60}} if kind == "gthread" else {}
    configure(shop, {"default": {**KINDS[kind], **options}}, STOP_TIMEOUT=60)
    with shop.serve("-v2") as site, contextlib.ExitStack() as stack:
        address = address_of(site)
        exit_begun = threading.Event()

        def ask_after(client: Client, delay: float) -> str:
            """Return the outcome of a request that is sent ``delay`` seconds after the exit has begun."""
            assert exit_begun.wait(DEADLINE)
            threading.Event().wait(delay)
            client.auto_open = 0  # this very connection, or none
            try:
                status, _ = client.ask("/kept")  # which closes it, as the answer says
            except (OSError, HTTPException) as error:
                return "late" if client.is_late else repr(error)
            return str(status)

        def ask_until_closed(client: Client) -> int:
            count = 0
            while True:
                try:
                    client.request("GET", "/kept")
                    response = client.getresponse()
                except ConnectionError:
                    assert client.is_late
                    return 1
                assert (response.status, response.read()) == (200, b"kept")
                count += 1
                if (response.getheader("Connection") or "").lower() == "close":
                    return count

        def client() -> Client:
            kept: Client = stack.enter_context(contextlib.closing(Client(address)))
            assert kept.ask("/kept") == (200, "kept")
            return kept

        idle, in_flight = client(), client()
        in_flight.request("GET", "/held/page")
        shop.expect_note("page waits")
        busy = [later(ask_until_closed, client()) for _ in range(2)]
        delays = [0, 0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8]
        asked = [later(ask_after, client(), delay) for delay in delays]
        site.send(signal.SIGTERM)
        exit_begun.set()
        wait_until_servers_stop(site, 0 if kind == "threaded" else 1)
        counts = [future.result(DEADLINE) for future in busy]
        release(shop, "page")
        response = in_flight.getresponse()
        assert (response.status, response.read()) == (200, b"page answered")
        if response.getheader("Connection") != "close":  # it began before, and the next one ends it
            assert ask_until_closed(in_flight) == 1
        outcomes = [future.result(DEADLINE) for future in asked]
        assert site.wait() == 0

        assert all(counts)
        assert "200" in outcomes
        assert set(outcomes) <= {"200", "late"}
        assert idle.sock.recv(1) == b""


@pytest.mark.parametrize(
    ("kind", "receivers"),
    [
        ("threaded", "site"),
        ("gthread", "site"),
        pytest.param("sync", "all", marks=pytest.mark.extended),
        pytest.param("gthread", "all", marks=pytest.mark.extended),
        pytest.param("sync", "site", marks=pytest.mark.extended),
    ],
)
def test_each_connection_gets_an_answer_when_sigterm_comes_to(
    shop: Project, short: Path, kind: str, receivers: str
) -> None:
    configure(shop, {"default": {**KINDS[kind], "BIND": ["127.0.0.1:0", f"unix:{short}/site.sock"]}})
    with shop.serve("-v2") as site:
        with Load(addresses_of(site), keep_alive=0, one_shot=6, slow=0, think=0.005) as load:
            load.wait_for(lambda answer: True, 40)
            for process in site.members() if receivers == "all" else [site.process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGTERM)
            assert site.wait() == 0
            load.finish_refused()
        assert site.members() == []

    started = [note.pid for note in shop.notes("worker start")]
    assert started == [note.pid for note in shop.notes("worker stop")]
    assert len(started) == 1
