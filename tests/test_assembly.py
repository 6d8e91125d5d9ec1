"""A site as a whole: its servers together, its terminal, its restart."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psutil
import pytest

from .processes import DEADLINE
from .projects import Project
from .servers.conftest import (
    GUNICORN,
    KINDS,
    THREADED,
    URLS,
    address_of,
    ask,
    configure,
    is_free,
    release,
)
from .servers.conftest import later as later

Later = Callable[..., Future[Any]]


@pytest.fixture
def shop(project: Project) -> Project:
    project.write("shop/urls.py", URLS)
    return project


def test_any_number_of_servers_of_any_kind_serve_on_one_bus(shop: Project) -> None:
    kinds = {f"{kind}{number}": KINDS[kind] for kind in KINDS for number in (1, 2)}
    configure(shop, kinds)
    with shop.serve() as site:
        addresses = {alias: address_of(site, alias) for alias in kinds}
        servers = {alias: int(ask(address)[1].split()[0]) for alias, address in addresses.items()}
        assert [servers[alias] == site.pid for alias in kinds] == [True, True, False, False, False, False]
        assert len(set(servers.values())) == 5
        assert len(shop.notes("site start")) == 1
        assert len(shop.notes("worker start")) == 1 + 2 * 4 + 2 * 2
        assert site.stop() == 0
        assert site.members() == []
        assert all(is_free(address) for address in addresses.values())
        assert len(shop.notes("worker stop")) == 1 + 2 * 4 + 2 * 2


def test_a_server_that_fails_takes_those_with_it_that_are_up(shop: Project) -> None:
    shop.write("broken.py", "1 / 0\n")
    broken = {"BACKEND": THREADED, "APPLICATION": "broken.app"}
    configure(shop, {"up": KINDS["gthread"], "broken": broken, "never": KINDS["sync"]}, PIDFILE="site.pid")
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


class Terminal:
    """A site in the foreground of a terminal of its own."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.text = ""

    def __enter__(self) -> Terminal:
        self.pid, self.descriptor = pty.fork()
        if not self.pid:
            try:
                os.chdir(self.project.root)
                os.environ.update(self.project.environment)
                os.execv(sys.executable, [sys.executable, self.project.manage, "runbus", "-v2"])
            finally:
                os._exit(1)
        self.process = psutil.Process(self.pid)
        return self

    def expect(self, text: str) -> str:
        """Read what it shows up to a text, or to its end."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.text:
            ready, _, _ = select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.text
            try:
                self.text += os.read(self.descriptor, 65536).decode()
            except OSError:  # the end of a terminal
                break
        return self.text

    def type(self, text: bytes) -> None:
        os.write(self.descriptor, text)

    def wait(self) -> int:
        self.expect("\0")  # never: to the end
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def __exit__(self, *args: object) -> None:
        if self.pid:
            for process in (*self.process.children(recursive=True), self.process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


def test_ctrl_c_in_a_terminal_answers_what_is_in_flight_and_ends_with_0(shop: Project, later: Later) -> None:
    configure(shop, KINDS)
    with Terminal(shop) as terminal:
        shown = terminal.expect("Quit with")
        addresses = {alias: address_in(shown, alias) for alias in KINDS}
        answers = {alias: later(ask, address, f"/held/{alias}") for alias, address in addresses.items()}
        for alias in KINDS:
            shop.expect_note(f"{alias} waits")
        children = terminal.process.children(recursive=True)
        terminal.type(b"\x03")
        terminal.expect("Bus STOPPING")
        for alias in KINDS:
            release(shop, alias)

        assert terminal.wait() == 0
        assert "Traceback" not in terminal.text
        assert {alias: answer.result() for alias, answer in answers.items()} == {
            alias: (200, f"{alias} answered") for alias in KINDS
        }
        assert len(children) == 2 + 4 + 2
        assert [child for child in children if child.is_running()] == []


def address_in(shown: str, alias: str) -> str:
    (line,) = (line for line in shown.splitlines() if line.startswith(f"  {alias} "))
    return line.split("http://")[1].partition("/")[0]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_hangup_of_the_terminal_ends_the_site(shop: Project) -> None:
    configure(shop, {"thread": {"BACKEND": THREADED}, "child": {"BACKEND": GUNICORN}}, PIDFILE="site.pid")
    with Terminal(shop) as terminal:
        shown = terminal.expect("Quit with")
        addresses = [address_in(shown, alias) for alias in ("thread", "child")]
        os.kill(terminal.pid, signal.SIGHUP)

        assert terminal.wait() == 0
        assert all(is_free(address) for address in addresses)
    assert not (shop.root / "site.pid").exists()


# The restart

TELL = """\
import json
import os
import sys


def tell():
    pidfile = open("site.pid").read().strip() if os.path.exists("site.pid") else None
    note("started " + json.dumps([
        os.getcwd(), sys._xoptions, sys.warnoptions, sys.argv[1:], os.environ.get("GIVEN"), pidfile,
    ]))


bus.subscribe("start", tell, role="site")
"""


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGHUP])
def test_a_restart_executes_the_site_anew_under_its_pid(shop: Project, number: signal.Signals) -> None:
    shop.listeners(TELL)
    configure(shop, {"thread": {"BACKEND": THREADED}, "child": {"BACKEND": GUNICORN}})
    options = ("-X", "site.option=1", "-W", "ignore::ImportWarning")
    command = (sys.executable, *options, "manage.py", "runbus", "--pidfile", "site.pid")
    with shop.start(*command, GIVEN="kept") as site:
        site.wait_for_line("^Quit with")
        before = site.members()
        shop.write("shop/urls.py", URLS.replace("{bus.state.name}", "new"))
        site.send(number)
        site.wait_for_line("^Quit with", count=2)
        banner = "\n".join(site.lines).rpartition("django-wspbus")[2]
        for alias in ("thread", "child"):
            assert ask(address_in(banner, alias))[1].endswith("new")
        assert [each for each in before if each.is_running() and each.pid != site.pid] == []
        assert len(site.members()) == len(before)
        assert site.stop() == 0
        assert site.members() == []

    first, second = (note.event for note in shop.notes() if note.event.startswith("started"))
    assert first == second
    assert f'"{site.pid}"]' in first
    assert {note.pid for note in shop.notes() if note.event.startswith("started")} == {site.pid}
    assert not (shop.root / "site.pid").exists()


def test_a_daemon_restarts_as_a_daemon_under_its_pid(shop: Project) -> None:
    daemonize = {"STDOUT": str(shop.root / "out"), "STDERR": str(shop.root / "err")}
    wspbus = {"DAEMONIZE": daemonize, "PIDFILE": "site.pid"}
    configure(shop, {"thread": {"BACKEND": THREADED}, "child": {"BACKEND": GUNICORN}}, **wspbus)
    out = shop.root / "out"
    with shop.serve() as site:
        assert site.wait() == 0
        pid = int((shop.root / "site.pid").read_text())
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: out.read_text().count("Quit with") == 2, "it serves again")
        banner = out.read_text().rpartition("django-wspbus")[2]
        for alias in ("thread", "child"):
            assert ask(address_in(banner, alias))[0] == 200
        assert int((shop.root / "site.pid").read_text()) == pid
        assert [note.pid for note in shop.notes("site start")] == [pid, pid]
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: site.members() == [], "it ends")
    assert not (shop.root / "site.pid").exists()
    assert "Traceback" not in (shop.root / "err").read_text()


def test_a_restart_with_wrong_settings_is_refused_with_the_reason_and_the_site_serves_on(
    shop: Project,
) -> None:
    configure(shop, {"thread": {"BACKEND": THREADED}, "child": {"BACKEND": GUNICORN}})
    with shop.serve() as site:
        addresses = [address_of(site, alias) for alias in ("thread", "child")]
        before = site.members()
        configure(shop, {"thread": {"BACKEND": THREADED, "BIND": "nonsense"}, "child": {"BACKEND": GUNICORN}})
        site.send(signal.SIGUSR2)

        refused = site.wait_for_line("^The restart failed, and the old code serves on: ").string
        assert "'nonsense' is not an address" in refused
        assert all(ask(address)[1].endswith("STARTED") for address in addresses)
        wait_until(lambda: site.members() == before, "what was tried is gone")
        assert site.stop() == 0
        assert "Traceback" not in site.output
