"""What every server does, whichever it is and whatever it listens on."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from django_wspbus.plugins.signals import SAME_REQUEST
from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .conftest import KINDS, Client, address_of, ask, configure, connect, descriptors, is_free, release

Later = Callable[..., Future[Any]]

BODY = b"0123456789" * 400_000


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a name that is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(params=[(kind, transport) for kind in KINDS for transport in ("tcp", "unix")], ids="-".join)
def server(request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    """The settings of one server: each kind, on each kind of socket."""
    kind, transport = request.param
    bind = "127.0.0.1:0" if transport == "tcp" else f"unix:{folder / 'site.sock'}"
    return {**KINDS[kind], "BIND": bind}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of one server, of each kind, on TCP."""
    return KINDS[request.param]


def hold(shop: Project, later: Later, address: str, path: str, body: bytes | None = None) -> Future[Any]:
    """Send a request, and return its future once the application is at work on it."""
    answer = later(ask, address, path, body)
    shop.expect_note(f"{path.rpartition('/')[2]} waits")
    return answer


def assert_nothing_is_left(site: RunningSite, address: str) -> None:
    assert site.members() == []
    assert is_free(address)
    assert not address.startswith("unix:") or not Path(address.removeprefix("unix:")).exists()


def test_it_answers_from_the_banner_on_and_when_stopped_what_is_in_flight(
    shop: Project, server: dict[str, Any], later: Later
) -> None:
    configure(shop, {"default": server}, PIDFILE="site.pid")
    with shop.serve("-v2") as site:
        address = address_of(site)
        assert ask(address)[1].endswith("STARTED")
        assert ask(address, "/upload/", BODY) == (200, hashlib.sha256(BODY).hexdigest())

        page = hold(shop, later, address, "/held/page")
        stream = hold(shop, later, address, "/stream/stream")
        upload = hold(shop, later, address, "/upload/upload", BODY)
        site.send(signal.SIGTERM)
        site.wait_for_line("Bus STOPPING")
        for name in ("page", "stream", "upload"):
            release(shop, name)

        assert page.result() == (200, "page answered")
        assert stream.result() == (200, "begun, ended")
        assert upload.result() == (200, hashlib.sha256(BODY).hexdigest())
        assert site.wait() == 0
        assert_nothing_is_left(site, address)
        assert not (shop.root / "site.pid").exists()


def test_an_address_that_is_taken_is_told_in_one_line(
    shop: Project, server: dict[str, Any], folder: Path
) -> None:
    family = socket.AF_UNIX if server["BIND"].startswith("unix:") else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind(str(folder / "site.sock") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        taken.listen()
        name = taken.getsockname()
        bind = f"unix:{name}" if family == socket.AF_UNIX else f"127.0.0.1:{name[1]}"
        configure(shop, {"early": KINDS["sync"], "shop": {**server, "BIND": bind}}, PIDFILE="site.pid")
        with shop.serve() as site:
            assert site.wait() == 1
            (line,) = site.lines
            assert "'shop'" in line
            assert bind in line
            assert site.members() == []
            assert not (shop.root / "site.pid").exists()
        assert family == socket.AF_INET or (folder / "site.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_what_is_in_flight_and_leaves_nothing(
    shop: Project, kind: dict[str, Any], folder: Path, later: Later, number: signal.Signals
) -> None:
    configure(shop, {"default": {**kind, "BIND": f"unix:{folder / 'site.sock'}"}}, PIDFILE="site.pid")
    with shop.serve("-v2") as site:
        address = address_of(site)
        cut = later(held_until_cut, address)
        shop.expect_note("never waits")
        site.send(number)
        site.wait_for_line("Bus STOPPING")
        time.sleep(2 * SAME_REQUEST)  # else it is the same request, told twice

        assert site.stop(number) == 128 + number
        cut.result()
        wait_until_gone(site)
        assert_nothing_is_left(site, address)
        assert not (shop.root / "site.pid").exists()


def held_until_cut(address: str) -> None:
    with contextlib.closing(Client(address)) as client, pytest.raises((OSError, EOFError)):
        client.ask("/held/never")


def wait_until_gone(site: RunningSite, seconds: float = 5) -> None:
    """Wait for what was killed to be gone, and the kernel to have closed what it had open."""
    _, alive = psutil.wait_procs(site.members(), timeout=seconds)
    assert alive == []


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_death_of_the_site_process_ends_it(
    shop: Project, kind: dict[str, Any], later: Later, busy: bool
) -> None:
    configure(shop, {"default": kind})
    with shop.serve() as site:
        address = address_of(site)
        assert ask(address)[0] == 200
        if busy:
            cut = later(held_until_cut, address)
            shop.expect_note("never waits")

        assert site.stop(signal.SIGKILL) == -signal.SIGKILL
        wait_until_gone(site)
        assert is_free(address)
        if busy:
            cut.result()


def test_a_request_that_hangs_is_named_and_ended_when_time_is_up(
    shop: Project, kind: dict[str, Any], later: Later
) -> None:
    configure(shop, {"shop": kind}, STOP_TIMEOUT=2)
    with shop.serve() as site:
        address = address_of(site, "shop")
        cut = later(held_until_cut, address)
        shop.expect_note("never waits")

        assert site.stop() == 70
        cut.result()
        assert "server 'shop'" in site.output
        assert_nothing_is_left(site, address)


def test_started_again_it_serves_and_stopped_again_it_leaves_nothing_open(
    shop: Project, kind: dict[str, Any]
) -> None:
    configure(shop, {"default": kind}, SIGNALS={"SIGUSR1": "stop", "SIGUSR2": "start"})
    stopped: list[int] = []
    threads: list[int] = []
    with shop.serve("-v2") as site:
        address = address_of(site)
        for count in range(1, 4):
            site.wait_for_line("Bus STARTED", count=count)
            assert ask(address)[0] == 200
            site.send(signal.SIGUSR1)
            site.wait_for_line("Bus STOPPED", count=count)
            assert [process.pid for process in site.members()] == [site.pid]  # the children are gone
            stopped.append(descriptors(site.pid))
            threads.append(fewest_threads(site.pid, 1 if kind is KINDS["threaded"] else 2))
            with connect(address) as waiting:  # the socket is the site's, and stays
                site.send(signal.SIGUSR2)
                site.wait_for_line("Bus STARTED", count=count + 1)
                waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert waiting.recv(65536).split()[1] == b"200"

        assert len(stopped) == 3
        assert len(set(stopped[1:])) == 1, stopped
        assert len(threads) == 3
        assert site.stop() == 0
        assert_nothing_is_left(site, address)


def fewest_threads(pid: int, expected: int) -> int:
    """Wait until a process has no more threads than that, as the kernel's end after Python's."""
    process = psutil.Process(pid)
    deadline = time.monotonic() + DEADLINE
    while process.num_threads() > expected:
        assert time.monotonic() < deadline, process.threads()
        time.sleep(0.01)
    return process.num_threads()
