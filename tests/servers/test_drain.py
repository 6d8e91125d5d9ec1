"""Draining: what becomes of those who have asked, who wait and who are connected when a site exits."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .conftest import GUNICORN, THREADED, URLS, Client, address_of, ask, connect, release

Later = Callable[..., Future[Any]]

KINDS: dict[str, dict[str, Any]] = {
    "threaded": {"BACKEND": THREADED},
    "sync": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1}},
    "gthread": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1, "threads": 2}},
}

# Answers that say how long they are, so that connections may be kept, and that tell when they are given.
LENGTHS = f"""\
{URLS}

def told(request):
    response = HttpResponse("told")
    response["Content-Length"] = 4
    return response


def noted(request, name):
    def parts():
        yield "begun, "
        wait_for(name)
        note(f"{{name}} ended")
        yield "ended"

    return StreamingHttpResponse(parts())


urlpatterns += [path("told", told), path("noted/<name>", noted)]
"""

LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"gunicorn": {"handlers": ["console"], "level": "INFO"}},
}
"""So that gunicorn says when it has been told to leave."""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a name that is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def shop(project: Project) -> Project:
    project.write("shop/urls.py", LENGTHS)
    return project


@pytest.fixture(params=["tcp", "unix"])
def bind(request: pytest.FixtureRequest, short: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{short / 'site.sock'}"


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
    parts = []
    with sock:
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def wait_until_told_to_leave(site: RunningSite, kind: str) -> None:
    """Wait until the servers have been told so, which is a moment later than the site."""
    site.wait_for_line("Bus STOPPING" if kind == "threaded" else "Handling signal: term")


# In flight and in the queue


@pytest.mark.parametrize(("kind", "count"), [("sync", 3), ("gthread", 6)])
def test_more_clients_than_a_server_has_hands_are_all_answered(
    shop: Project, later: Later, bind: str, kind: str, count: int
) -> None:
    configure(shop, {"default": {**KINDS[kind], "BIND": bind}})
    with shop.serve("-v2") as site, contextlib.ExitStack() as stack:
        address = address_of(site)
        clients = [stack.enter_context(send(address, "/held/page")) for _ in range(count)]
        shop.expect_note("page waits")
        reading = [later(read_to_end, client) for client in clients]
        site.send(signal.SIGTERM)
        wait_until_told_to_leave(site, kind)
        release(shop, "page")
        answers = [future.result(DEADLINE) for future in reading]
        assert site.wait() == 0

    assert [answer.split()[1] for answer in answers] == [b"200"] * count
    assert all(b"page answered" in answer for answer in answers)


@pytest.mark.parametrize("kind", KINDS)
def test_stop_listeners_run_after_the_last_request_of_their_process(
    shop: Project, later: Later, kind: str
) -> None:
    server = {**KINDS[kind], "OPTIONS": {"workers": 2}} if kind == "sync" else KINDS[kind]
    configure(shop, {"default": server})
    with shop.serve("-v2") as site:
        address = address_of(site)
        streams = [later(ask, address, f"/noted/{name}") for name in ("one", "other")]
        for name in ("one", "other"):
            shop.expect_note(f"{name} waits")
        site.send(signal.SIGTERM)
        wait_until_told_to_leave(site, kind)
        release(shop, "one")
        assert streams[0].result() == (200, "begun, ended")
        release(shop, "other")
        assert streams[1].result() == (200, "begun, ended")
        assert site.wait() == 0

    for name in ("one", "other"):
        (ended,) = shop.notes(f"{name} ended")
        of_process = [note.event for note in shop.notes() if note.pid == ended.pid]
        assert of_process.index(f"{name} ended") < of_process.index("worker stop")


def test_what_does_not_end_in_time_is_named_with_what_the_delay_has_left_of_it(shop: Project) -> None:
    configure(shop, {"shop": KINDS["sync"], "other": KINDS["threaded"]}, DRAIN_DELAY=1, STOP_TIMEOUT=2)
    with shop.serve("-v2") as site, contextlib.ExitStack() as stack:
        for alias, name in (("shop", "one"), ("other", "two")):
            stack.enter_context(send(address_of(site, alias), f"/held/{name}"))
            shop.expect_note(f"{name} waits")
        begun = time.monotonic()
        assert site.stop() == 70
        assert time.monotonic() - begun < 10 * 2
        assert site.members() == []

    found = re.findall(r"The server '(\w+)': not (?:stopped|answered) within (\S+) seconds", site.output)
    assert sorted(alias for alias, _ in found) == ["other", "shop"]
    assert all(float(seconds) <= 0.8 for _, seconds in found)
    assert re.search(r"'shop'.*workers left: \d+", site.output)
    assert re.search(r"'other'.* GET /held/two", site.output)


# Connections that are kept


@pytest.mark.parametrize("kind", ["gthread", "threaded"])
def test_kept_connections_are_answered_a_last_time_and_told_to_close(
    shop: Project, later: Later, kind: str
) -> None:
    options = {"OPTIONS": {"workers": 1, "threads": 4}} if kind == "gthread" else {}
    configure(shop, {"default": {**KINDS[kind], **options}}, STOP_TIMEOUT=60)
    with shop.serve("-v2") as site, contextlib.ExitStack() as stack:
        address = address_of(site)
        told_to_exit = threading.Event()

        def ask_after(client: Client, answered: float, delay: float) -> tuple[str, float]:
            """Return what became of a request that is sent so long after the site has been told to exit."""
            assert told_to_exit.wait(DEADLINE)
            threading.Event().wait(delay)
            asked = time.monotonic() - answered
            client.auto_open = 0  # this very connection, or none
            try:
                status, _ = client.ask("/told")  # which closes it, as the answer says
            except (OSError, HTTPException) as error:
                return repr(error), asked
            return str(status), asked

        def ask_until_told_to_close(client: Client) -> int:
            count = 0
            while True:
                client.request("GET", "/told")
                response = client.getresponse()
                assert (response.status, response.read()) == (200, b"told")
                count += 1
                if (response.getheader("Connection") or "").lower() == "close":
                    return count

        def client() -> Client:
            kept: Client = stack.enter_context(contextlib.closing(Client(address)))
            assert kept.ask("/told") == (200, "told")
            return kept

        idle, in_flight = client(), client()
        in_flight.request("GET", "/held/page")
        shop.expect_note("page waits")
        busy = [later(ask_until_told_to_close, client()) for _ in range(2)]
        delays = [0, 0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8]
        asked = [later(ask_after, client(), time.monotonic(), delay) for delay in delays]
        begun = time.monotonic()
        site.send(signal.SIGTERM)
        told_to_exit.set()
        wait_until_told_to_leave(site, kind)
        counts = [future.result(DEADLINE) for future in busy]
        release(shop, "page")
        response = in_flight.getresponse()
        assert (response.status, response.read()) == (200, b"page answered")
        if response.getheader("Connection") != "close":  # it began before, and the next one ends it
            assert ask_until_told_to_close(in_flight) == 1
        outcomes = [future.result(DEADLINE) for future in asked]
        assert site.wait() == 0
        assert time.monotonic() - begun < 10 * 2.5

        assert all(counts)
        in_time = [outcome for outcome, asked_after in outcomes if asked_after < 1.5]
        assert len(in_time) >= 1
        assert set(in_time) == {"200"}, outcomes
        assert idle.sock.recv(1) == b""


# Under load


class Crowd:
    """Clients that connect for each request, until the site is refused to them, as a context manager."""

    def __init__(self, address: str, count: int = 6) -> None:
        self.address = address
        self.outcomes: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"Crowd {number}", daemon=True) for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        deadline = time.monotonic() + DEADLINE
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
            assert not thread.is_alive()

    def wait_for(self, outcome: str, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.outcomes[outcome] >= count, DEADLINE), self.outcomes

    def _run(self) -> None:
        outcome = ""
        while outcome != "refused":
            outcome = self._ask()
            with self._changed:
                self.outcomes[outcome] += 1
                self._changed.notify_all()

    def _ask(self) -> str:
        try:
            sock = send(self.address, "/")
        except (ConnectionRefusedError, FileNotFoundError):
            return "refused"
        except OSError as error:
            return f"not sent: {error!r}"
        try:
            answer = read_to_end(sock)
        except OSError as error:
            return f"not answered: {error!r}"
        head = answer.partition(b"\r\n\r\n")[0].lower()
        return "{} {}".format(
            head[9:12].decode() or "closed", "close" if b"connection: close" in head else "keep"
        )


@pytest.mark.parametrize("who", ["site", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_who_gets_a_connection_gets_an_answer_at_the_exit_of(
    shop: Project, short: Path, kind: str, who: str
) -> None:
    servers = {"tcp": KINDS[kind], "unix": {**KINDS[kind], "BIND": f"unix:{short / 'site.sock'}"}}
    configure(shop, servers)
    with shop.serve("-v2") as site, contextlib.ExitStack() as stack:
        crowds = [stack.enter_context(Crowd(address_of(site, alias))) for alias in servers]
        for crowd in crowds:
            crowd.wait_for("200 close", 30)
        members = site.members()
        for process in members if who == "all" else members[:0]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        if who == "site":
            site.send(signal.SIGTERM)
        assert site.wait() == 0
        assert site.members() == []

    for crowd in crowds:
        assert set(crowd.outcomes) <= {"200 close", "503 close", "refused"}, crowd.outcomes
        assert crowd.outcomes["refused"] == 6
    started = [note.pid for note in shop.notes("worker start")]
    assert sorted(started) == sorted(note.pid for note in shop.notes("worker stop"))
    assert len(started) == (1 if kind == "threaded" else 2)
