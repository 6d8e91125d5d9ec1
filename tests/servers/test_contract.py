"""What every server does, whichever it is and whatever it listens on."""

from __future__ import annotations

import hashlib
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from django_wspbus.plugins.signals import SAME_REQUEST
from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .clients import ask, connect, hold_until_cut, is_free
from .conftest import KINDS, Later, address_of, configure, descriptors, hold, release
from .load import addresses_of, await_value

BODY = b"0123456789" * 400_000


def assert_nothing_is_left(project: Project, site: RunningSite, *addresses: str) -> None:
    assert site.members() == []
    assert [address for address in addresses if not is_free(address)] == []
    paths = [address.removeprefix("unix:") for address in addresses if address.startswith("unix:")]
    assert [path for path in (*paths, project.root / "site.pid") if Path(path).exists()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_from_the_banner_on_and_when_stopped_what_is_in_flight(
    shop: Project, short: Path, later: Later, kind: str
) -> None:
    bind = ["127.0.0.1:0", f"unix:{short}/site.sock"]
    configure(shop, {"default": {**KINDS[kind], "BIND": bind}}, PIDFILE="site.pid")
    with shop.serve("-v2") as site:
        tcp, unix = addresses_of(site)
        for address in (tcp, unix):
            assert ask(address)[1].endswith("STARTED")
            assert ask(address, "/upload/", BODY) == (200, hashlib.sha256(BODY).hexdigest())

        page = hold(shop, later, tcp, "/held/page")
        stream = hold(shop, later, unix, "/stream/stream")
        upload = hold(shop, later, tcp, "/upload/upload", BODY)
        site.send(signal.SIGTERM)
        site.wait_for_line("Bus STOPPING")
        for name in ("page", "stream", "upload"):
            release(shop, name)

        assert page.result() == (200, "page answered")
        assert stream.result() == (200, "begun, ended")
        assert upload.result() == (200, hashlib.sha256(BODY).hexdigest())
        assert site.wait() == 0
        assert_nothing_is_left(shop, site, tcp, unix)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_an_address_that_is_taken_is_named_in_one_line(
    shop: Project, short: Path, family: socket.AddressFamily
) -> None:
    path = short / "site.sock"
    with socket.socket(family) as taken:
        taken.bind(str(path) if family == socket.AF_UNIX else ("127.0.0.1", 0))
        taken.listen()
        bind = f"unix:{path}" if family == socket.AF_UNIX else f"127.0.0.1:{taken.getsockname()[1]}"
        servers = {"early": KINDS["sync"], "shop": {**KINDS["threaded"], "BIND": bind}}
        configure(shop, servers, PIDFILE="site.pid")
        with shop.serve() as site:
            assert site.wait() == 1
            (line,) = site.lines
            assert "'shop'" in line
            assert bind in line
            assert_nothing_is_left(shop, site)
        assert path.exists() == (family == socket.AF_UNIX)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("threaded", signal.SIGTERM),
        ("gthread", signal.SIGINT),
        pytest.param("sync", signal.SIGTERM, marks=pytest.mark.extended),
    ],
)
def test_a_second_signal_ends_at_once_what_is_in_flight_and_leaves_nothing(
    shop: Project, short: Path, later: Later, kind: str, number: signal.Signals
) -> None:
    address = f"unix:{short}/site.sock"
    configure(shop, {"default": {**KINDS[kind], "BIND": address}}, PIDFILE="site.pid")
    with shop.serve("-v2") as site:
        site.wait_until_started()
        cut = later(hold_until_cut, address)
        shop.expect_note("never waits")
        site.send(number)
        site.wait_for_line("Bus STOPPING")
        time.sleep(2 * SAME_REQUEST)  # else it is the same request, sent twice

        assert site.stop(number) == 128 + number
        cut.result()
        assert psutil.wait_procs(site.members(), DEADLINE)[1] == []
        assert_nothing_is_left(shop, site, address)


@pytest.mark.extended
@pytest.mark.usefixtures("new_interpreters")
def test_started_again_they_serve_and_stopped_again_they_leave_nothing_open(shop: Project) -> None:
    kinds = ("gthread", "threaded")
    configure(shop, {kind: KINDS[kind] for kind in kinds}, SIGNALS={"SIGUSR1": "stop", "SIGUSR2": "start"})
    stopped: list[Any] = []
    with shop.serve("-v2") as site:
        addresses = [address_of(site, kind) for kind in kinds]
        for count in range(1, 4):
            site.wait_for_line("Bus STARTED", count=count)
            assert [ask(address)[0] for address in addresses] == [200, 200]
            site.send(signal.SIGUSR1)
            site.wait_for_line("Bus STOPPED", count=count)
            assert [process.pid for process in site.members()] == [site.pid]  # the children are gone
            # With that of the control socket. The kernel's end of the others comes after Python's.
            await_value(psutil.Process(site.pid).num_threads, 4)
            stopped.append(descriptors(site.pid))
            waiting = [connect(address) for address in addresses]  # the sockets are the site's, and stay
            site.send(signal.SIGUSR2)
            site.wait_for_line("Bus STARTED", count=count + 1)
            for each in waiting:
                with each:
                    each.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert each.recv(65536).split()[1] == b"200"

        assert len(stopped) == 3
        assert len(set(stopped[1:])) == 1, stopped
        assert site.stop() == 0
        assert_nothing_is_left(shop, site, *addresses)
