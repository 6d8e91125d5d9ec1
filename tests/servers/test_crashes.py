"""Processes of a site that die: what is lost with them, and what goes on."""

from __future__ import annotations

import http.client
import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .clients import ask, is_free
from .conftest import GUNICORN, KINDS, THREADED, Later, address_of, configure, hold, kill, master_of, release
from .load import VERSIONED_URLS, Failure, Load, Shop, addresses_of, await_that, held_start, status_of

WORKERS = 3
OPTIONS = {"sync": {"workers": WORKERS}, "gthread": {"workers": WORKERS, "threads": 4}}

URLS_WITH_AN_END = f"""\
{VERSIONED_URLS}

def end(request, name):
    wait_for(name)
    os._exit(3)


urlpatterns += [path("end/<name>", end)]
"""


class Serving:
    """A site of one server with children, which clients ask all the time, and a threaded one beside it."""

    def __init__(self, shop: Shop, site: RunningSite, kind: str) -> None:
        self.shop = shop
        self.site = site
        self.kind = kind
        self.addresses = addresses_of(site)
        self.beside = address_of(site, "beside")
        self.socket = Path(self.addresses[1].removeprefix("unix:"))
        self.inode = self.socket.stat().st_ino

    def status(self) -> dict[str, Any]:
        """Return the status of the server as the site process has it, in which the other server is."""
        status = status_of(self.beside)
        return {**status["servers"]["default"], "condition": status["condition"]}

    def await_status(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the server has all its workers, and a condition is true of its status."""

        def is_so() -> bool:
            status = self.status()
            is_whole = status["condition"] == "ready" and len(status["workers"]) == WORKERS
            return is_whole and condition(status)

        await_that(is_so, self.status)

    def load(self) -> Load:
        return Load([*self.addresses, self.beside], keep_alive=1, one_shot=2, slow=0, think=0.03)

    def hold(self, later: Later, path: str) -> tuple[int, Future[Any]]:
        """Send a request that waits; return the PID of the worker that is at work on it, and its future."""
        answer = hold(self.shop, later, self.addresses[0], path)
        (note,) = self.shop.notes(f"{path.rpartition('/')[2]} waits")
        return note.pid, answer

    def assert_the_socket_is_the_same(self) -> None:
        assert self.socket.stat().st_ino == self.inode


@pytest.fixture(scope="module")
def serving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site for all faults of a kind of server."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.write("shop/urls.py", URLS_WITH_AN_END)
    with tempfile.TemporaryDirectory() as short:  # as the names of Unix sockets have to be
        bind = ["127.0.0.1:0", f"unix:{short}/site.sock"]
        server = {"BACKEND": GUNICORN, "OPTIONS": OPTIONS[request.param], "BIND": bind}
        configure(shop, {"default": server, "beside": {"BACKEND": THREADED}}, PIDFILE="site.pid")
        with shop.serve("-v2") as site:
            yield Serving(shop, site, request.param)
            assert (shop.root / "site.pid").read_text() == f"{site.pid}\n"
            assert site.stop() == 0
            assert site.members() == []
            assert "Traceback" not in site.output


# One process of a child


@pytest.mark.parametrize(
    ("serving", "fault"),
    [
        ("gthread", "killed"),
        ("sync", "exits"),
        pytest.param("gthread", "exits", marks=pytest.mark.extended),
        pytest.param("sync", "killed", marks=pytest.mark.extended),
    ],
    indirect=["serving"],
)
def test_a_worker_that_dies_takes_with_it_what_it_was_answering_and_nothing_else(
    serving: Serving, later: Later, fault: str
) -> None:
    name = f"worker-{fault}"
    with serving.load() as load:
        load.wait_for_all()
        worker, lost = serving.hold(later, f"/{'held' if fault == 'killed' else 'end'}/{name}")
        process = psutil.Process(worker)
        before = time.monotonic()
        if fault == "killed":
            process.kill()
        else:
            release(serving.shop, name)
        assert psutil.wait_procs([process], DEADLINE)[1] == []
        after = time.monotonic()
        serving.await_status(lambda status: worker not in status["workers"])
        recovered = time.monotonic()
        load.wait_for_all(lambda answer: answer.began > recovered)

    assert isinstance(lost.exception(), (ConnectionResetError, http.client.RemoteDisconnected))
    # Its other threads were answering, too; a sync worker has one connection.
    assert len(load.failures) <= (0 if serving.kind == "sync" else 2 * len(load.names) / 3), load.failures
    for failure in load.failures:
        assert serving.beside not in failure.client
        assert before < failure.ended
        assert failure.began < after
        assert not is_of_the_socket(failure), failure
    serving.assert_the_socket_is_the_same()


def is_of_the_socket(failure: Failure) -> bool:
    """Whether a connection was not even made."""
    return re.match("ConnectionRefused|FileNotFound|BlockingIO|Timeout", failure.outcome) is not None


@pytest.mark.parametrize(
    ("serving", "number"),
    [
        ("gthread", signal.SIGKILL),
        pytest.param("sync", signal.SIGTERM, marks=pytest.mark.extended),
        pytest.param("gthread", signal.SIGTERM, marks=pytest.mark.extended),
        pytest.param("sync", signal.SIGKILL, marks=pytest.mark.extended),
    ],
    indirect=["serving"],
)
def test_a_master_that_dies_is_replaced_and_no_request_is_lost(
    serving: Serving, later: Later, number: signal.Signals
) -> None:
    name = f"master-{number.name}"
    said = len(serving.site.lines)
    with serving.load() as load:
        load.wait_for_all()
        master, workers = serving.status()["pid"], serving.status()["workers"]
        worker, held = serving.hold(later, f"/held/{name}")
        assert worker in workers
        os.kill(master, number)
        if number == signal.SIGKILL:  # else it goes on until its last worker has left
            serving.await_status(lambda status: status["pid"] != master)
        release(serving.shop, name)
        serving.await_status(lambda status: status["pid"] != master and status["leaving"] == [])
        recovered = time.monotonic()
        load.wait_for_all(lambda answer: answer.began > recovered)
        load.finish()

    assert held.result() == (200, f"{name} answered")
    assert {answer.pid for answer in load.answers if answer.began > recovered}.isdisjoint(workers)
    stopped = [note.pid for note in serving.shop.notes("worker stop")]
    assert [stopped.count(each) for each in workers] == [1] * WORKERS
    answers = r"'default' answers again, process ([0-9]+)"
    await_that(lambda: re.search(answers, "\n".join(serving.site.lines[said:])))
    output = "\n".join(serving.site.lines[said:])
    how = "was killed by SIGKILL" if number == signal.SIGKILL else "exited with status 0"
    assert output.count(f"The server 'default' {how}; restarting it.") == 1
    assert output.count("; restarting it.") == 1
    assert re.findall(answers, output) == [str(serving.status()["pid"])]
    serving.assert_the_socket_is_the_same()


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["gthread", pytest.param("sync", marks=pytest.mark.extended)])
def test_what_a_killed_master_leaves_at_work_is_named_and_ended_when_time_is_up(
    shop: Project, later: Later, kind: str
) -> None:
    configure(shop, {"default": KINDS[kind]}, GRACEFUL_TIMEOUT=3)
    with shop.serve("-v2") as site:
        address = address_of(site)
        cut = hold(shop, later, address, "/held/never")
        (note,) = shop.notes("never waits")
        kill(master_of(address))

        site.wait_for_line(
            f"The server 'default': (killed|requests cut off) after [0-9.]+ seconds.*{note.pid}"
        )
        assert isinstance(cut.exception(), (ConnectionResetError, http.client.RemoteDisconnected))
        await_that(lambda: note.pid not in {each.pid for each in site.members()})
        assert ask(address)[0] == 200
        assert site.stop() == 0
        assert site.members() == []


# The site process

HELD_BOOT = """
from pathlib import Path

if (Path(__file__).parent.parent / "hold").exists():
    from shop.urls import wait_for

    wait_for("go")
"""


class Whole(NamedTuple):
    """A site with all there is: each kind of server, on both kinds of sockets, and probes."""

    shop: Project
    site: RunningSite
    addresses: dict[str, str]


@pytest.fixture
def whole(shop: Shop, short: Path) -> Iterator[Whole]:
    shop.write("shop/wsgi.py", (shop.root / "shop/wsgi.py").read_text() + HELD_BOOT)
    servers = {kind: {**KINDS[kind], "BIND": f"unix:{short}/{kind}.sock"} for kind in KINDS}
    servers |= {f"{kind}-tcp": KINDS[kind] for kind in ("threaded", "gthread")}
    servers = {alias: {**each, "APPLICATION": "shop.wsgi.application"} for alias, each in servers.items()}
    configure(shop, servers, HEALTH="127.0.0.1:0")
    with shop.serve("-v2") as site:
        addresses = {alias: address_of(site, alias) for alias in servers}
        addresses["probes"] = site.wait_for_line(r"probes +http://(\S+?)/livez")[1]
        yield Whole(shop, site, addresses)


@pytest.mark.parametrize(
    "moment",
    ["serving", *(pytest.param(each, marks=pytest.mark.extended) for each in ("reloading", "restarting"))],
)
def test_a_site_process_that_is_killed_leaves_no_process_and_no_port(
    whole: Whole, later: Later, moment: str
) -> None:
    shop, site, addresses = whole
    cut = [hold(shop, later, addresses[alias], f"/held/{alias}") for alias in KINDS]
    serving = len(site.members())
    if moment != "serving":
        (shop.root / "hold").touch()
        site.send(signal.SIGUSR1 if moment == "reloading" else signal.SIGUSR2)
        shop.expect_note("go waits", 3 if moment == "reloading" else 4)  # the dry run is one of them
        assert len(site.members()) > serving  # those that are to serve next
    members = site.members()

    assert site.stop(signal.SIGKILL) == -signal.SIGKILL
    assert psutil.wait_procs(members, DEADLINE)[1] == []  # a second, as a rule
    assert site.members() == []
    assert [alias for alias, address in addresses.items() if not is_free(address)] == []
    for answer in cut:
        assert isinstance(answer.exception(), (ConnectionResetError, http.client.RemoteDisconnected))


# All of them


@pytest.mark.parametrize(
    ("kind", "busy", "first"),
    [
        ("sync", True, "site"),
        ("gthread", True, "children"),
        pytest.param("sync", False, "children", marks=pytest.mark.extended),
        pytest.param("gthread", False, "site", marks=pytest.mark.extended),
    ],
)
def test_sigterm_to_every_process_at_once_ends_it_as_one_to_the_site_process(
    shop: Project, later: Later, kind: str, busy: bool, first: str
) -> None:
    configure(shop, {"default": KINDS[kind]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        ask(address)
        if busy:
            held = hold(shop, later, address, "/held/page")
        members = sorted(site.members(), key=lambda process: process.pid, reverse=first == "children")
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):  # at once, though one by one
            for process in members:
                process.send_signal(number)
        if busy:
            site.wait_for_line("Bus STOPPING")
            release(shop, "page")
            assert held.result() == (200, "page answered")

        assert site.wait() == 0
        assert site.members() == []
        assert is_free(address)
        assert "Traceback" not in site.output
    counts = Counter((note.pid, note.event) for note in shop.notes())
    workers: int = KINDS[kind]["OPTIONS"]["workers"]
    assert len(members) == 2 + workers
    for event, processes in {
        "site start": 1,
        "site stop": 1,
        "worker start": workers,
        "worker stop": workers,
    }.items():
        assert [count for (_, what), count in counts.items() if what == event] == [1] * processes


# A child, while the site is starting


@pytest.mark.extended
def test_a_child_that_is_killed_while_the_site_is_starting_is_started_again(shop: Shop, short: Path) -> None:
    shop.listeners(held_start(priority=90))  # after the servers
    address = f"unix:{short}/site.sock"
    configure(shop, {"default": {**KINDS["sync"], "BIND": address}})
    with shop.serve("-v2") as site:
        shop.expect_note("held")
        kill(master_of(address))  # it serves already
        release(shop, "go")

        site.wait_for_line("^Quit with")
        await_that(lambda: ask(address) and "The server 'default' answers again" in site.output)
        assert site.output.count("was killed by SIGKILL; restarting it.") == 1
        assert site.stop() == 0
        assert site.members() == []
