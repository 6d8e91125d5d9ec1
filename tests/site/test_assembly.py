"""A site as a whole: its servers together, its terminal, its restart."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psutil
import pytest

from ..projects import Project
from ..servers.conftest import GUNICORN, THREADED, URLS, address_of, ask, configure, is_free, release
from ..servers.load import await_that
from ..terminals import CONTROL_C, Terminal

Later = Callable[..., Future[Any]]

KINDS: dict[str, dict[str, Any]] = {
    "threaded": {"BACKEND": THREADED},
    "sync": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2}},
    "gthread": {"BACKEND": GUNICORN, "OPTIONS": {"threads": 4}},
}
PAIR = {"thread": {"BACKEND": THREADED}, "child": {"BACKEND": GUNICORN}}


@pytest.fixture
def shop(project: Project) -> Project:
    project.write("shop/urls.py", URLS)
    return project


@pytest.mark.extended
@pytest.mark.usefixtures("new_interpreters")
def test_any_number_of_servers_of_any_kind_serve_on_one_bus(shop: Project) -> None:
    kinds = {f"{kind}{number}": KINDS[kind] for kind in KINDS for number in (1, 2)}
    configure(shop, kinds)
    with shop.serve() as site:
        addresses = {alias: address_of(site, alias) for alias in kinds}
        workers = {alias: int(ask(address)[1].split()[0]) for alias, address in addresses.items()}
        assert [workers[alias] == site.pid for alias in kinds] == [True, True, False, False, False, False]
        assert len(set(workers.values())) == 5
        assert len(shop.notes("site start")) == 1
        assert len(shop.notes("worker start")) == 1 + 2 * 2 + 2 * 1
        assert site.stop() == 0
        assert site.members() == []
        assert all(is_free(address) for address in addresses.values())
        assert len(shop.notes("worker stop")) == 1 + 2 * 2 + 2 * 1


def test_a_server_that_fails_stops_those_that_are_ready(shop: Project) -> None:
    shop.write("broken.py", "1 / 0\n")
    broken = {"BACKEND": THREADED, "APPLICATION": "broken.app"}
    configure(shop, {"ready": KINDS["sync"], "broken": broken, "never": KINDS["sync"]}, PIDFILE="site.pid")
    with shop.serve() as site:
        assert site.wait() == 1
        assert "The server 'broken' did not start: " in site.output
        assert "ZeroDivisionError" in site.output
        assert site.members() == []
    # In the site process, for the server that was to serve there, and in the workers that did.
    counts = {channel: len(shop.notes(f"worker {channel}")) for channel in ("start", "stop", "exit")}
    assert counts == {"start": 3, "stop": 3, "exit": 3}
    assert not (shop.root / "site.pid").exists()


# A terminal


def test_ctrl_c_in_a_terminal_answers_requests_in_flight_and_ends_with_0(shop: Project, later: Later) -> None:
    configure(shop, KINDS)
    with Terminal(shop, "-v2") as site:
        addresses = {alias: address_of(site, alias) for alias in KINDS}
        answers = {alias: later(ask, address, f"/held/{alias}") for alias, address in addresses.items()}
        for alias in KINDS:
            shop.expect_note(f"{alias} waits")
        children = psutil.Process(site.pid).children(recursive=True)
        site.press(CONTROL_C)
        site.wait_for_line("Bus STOPPING")
        for alias in KINDS:
            release(shop, alias)

        assert site.wait() == 0
        assert "Traceback" not in site.output
        assert {alias: answer.result() for alias, answer in answers.items()} == {
            alias: (200, f"{alias} answered") for alias in KINDS
        }
        assert len(children) == 1 + 2 + 1 + 1 + 1  # the last one is the guard of the threaded server
        assert site.members() == []


def test_a_hangup_of_the_terminal_ends_the_site(shop: Project) -> None:
    configure(shop, {"default": {"BACKEND": THREADED}}, PIDFILE="site.pid")
    with Terminal(shop) as site:
        address = address_of(site)
        site.send(signal.SIGHUP)

        assert site.wait() == 0
        assert is_free(address)
    assert not (shop.root / "site.pid").exists()


# The restart

NOTE_ITS_START = """\
import json
import os
import sys


def note_start():
    pidfile = open("site.pid").read().strip() if os.path.exists("site.pid") else None
    note("started " + json.dumps([
        os.getcwd(), sys._xoptions, sys.warnoptions, sys.argv[1:], os.environ.get("GIVEN"), pidfile,
    ]))


bus.subscribe("start", note_start, role="site")
"""


@pytest.mark.extended
@pytest.mark.usefixtures("new_interpreters")
def test_a_restart_executes_the_site_anew_under_its_pid(shop: Project) -> None:
    shop.listeners(NOTE_ITS_START)
    configure(shop, PAIR)
    options = ("-X", "site.option=1", "-W", "ignore::ImportWarning")
    command = (sys.executable, *options, "manage.py", "runbus", "--pidfile", "site.pid")
    with shop.start(*command, GIVEN="kept") as site:
        addresses = [address_of(site, alias) for alias in PAIR]
        site.wait_for_line("^Quit with")
        before = site.members()
        shop.write("shop/urls.py", URLS.replace("{bus.state.name}", "new"))
        site.send(signal.SIGUSR2)
        site.wait_for_line("^Quit with", count=2)
        for address in addresses:
            assert ask(address)[1].endswith("new")
        old = [each for each in before if each.pid != site.pid]
        await_that(lambda: not any(each.is_running() for each in old), site.members)
        assert len(site.members()) == len(before)
        assert site.stop() == 0
        assert site.members() == []

    first, second = (note.event for note in shop.notes() if note.event.startswith("started"))
    assert first == second
    assert f'"{site.pid}"]' in first
    assert {note.pid for note in shop.notes() if note.event.startswith("started")} == {site.pid}
    assert not (shop.root / "site.pid").exists()


@pytest.mark.extended
def test_a_daemon_restarts_as_a_daemon_under_its_pid(shop: Project) -> None:
    daemonize = {"STDOUT": str(shop.root / "out"), "STDERR": str(shop.root / "err")}
    configure(shop, PAIR, DAEMONIZE=daemonize, PIDFILE="site.pid")
    out = shop.root / "out"
    with shop.serve() as site:
        assert site.wait() == 0
        pid = int((shop.root / "site.pid").read_text())
        os.kill(pid, signal.SIGHUP)
        await_that(lambda: out.read_text().count("Quit with") == 2, out.read_text)
        banner = out.read_text().rpartition("django-wspbus")[2].splitlines()
        for alias in PAIR:
            (line,) = (line for line in banner if line.startswith(f"  {alias} "))
            assert ask(line.split("http://")[1].partition("/")[0])[0] == 200
        assert int((shop.root / "site.pid").read_text()) == pid
        assert [note.pid for note in shop.notes("site start")] == [pid, pid]
        os.kill(pid, signal.SIGTERM)
        await_that(lambda: site.members() == [], site.members)
    assert not (shop.root / "site.pid").exists()
    assert "Traceback" not in (shop.root / "err").read_text()
