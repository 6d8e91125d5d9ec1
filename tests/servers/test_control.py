"""Reloads, restarts and exits over the control socket: each step, and the outcome."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.control.address import listed
from django_wspbus.control.client import ask as request
from django_wspbus.control.conversation import ControlError
from django_wspbus.control.finding import FoundSite, choose, find
from django_wspbus.control.protocol import Error, Result, Step
from tests.plugins.test_privileges import (  # noqa: F401  # fixtures among them
    interpreter,
    open_folder,
    search_path,
)

from ..controlled import order, result, site_at, site_of
from .conftest import BOTH, GUNICORN, Later, address_of, ask, configure, hold, release
from .load import Load, Shop, addresses_of, await_that

BROKEN = "import nothing\n"

TWO = {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2}}}

NOT_AS_NEXT_PROGRAM = """
import os
if "DJANGO_WSPBUS_KEPT" in os.environ:
    raise ValueError("not as the next program")
"""


def message(reply: Any) -> str:
    assert isinstance(reply, Result), reply
    assert reply.value["seconds"] >= 0
    return str(reply.value["message"])


def test_a_reload_shows_each_step_and_its_outcome(shop: Shop) -> None:
    configure(shop, TWO)
    with shop.serve() as running:
        running.wait_until_started()
        site = site_of(running)
        assert (site.settings, site.directory) == ("settings", str(shop.root))
        steps, outcome = order(site, "graceful")
        assert re.fullmatch(r"Reloaded in \d+\.\d\d s\.", message(outcome))
        assert steps[0] == "booting 'default'"
        assert steps[-3:] == ["2 of 2 ready", "switching", "draining (0 requests)"]

        shop.write("shop/urls.py", BROKEN)
        steps, outcome = order(site, "graceful")
        assert steps[0] == "booting 'default'"
        assert "switching" not in steps
        assert isinstance(outcome, Error)
        assert outcome.status == 1
        assert outcome.text.startswith("The reload failed; the old code keeps serving: the server 'default'")
        assert "shop/urls.py, line 1: ModuleNotFoundError: No module named 'nothing'" in outcome.text
        assert "Traceback (most recent call last):" in outcome.text
        assert running.stop() == 0


def test_a_stop_ends_with_the_process_after_what_it_was_answering(shop: Shop, later: Later) -> None:
    configure(shop, TWO)
    with shop.serve() as running:
        address = address_of(running)
        answer = hold(shop, later, address, "/held/one")
        replies = request(site_of(running), "stop", timeout=None)
        first = next(replies)
        assert isinstance(first, Step)
        assert first.text.startswith("draining (")
        release(shop, "one")
        assert answer.result() == (200, "one answered")
        *_, outcome = replies
        assert re.fullmatch(r"Stopped in \d+\.\d\d s\.", message(outcome))
        assert running.wait() == 0
        assert [name for name in listed() if name.pid == running.pid] == []


@pytest.mark.extended
def test_clients_of_a_restart_get_the_outcome_from_the_next_program(shop: Shop, later: Later) -> None:
    configure(shop, TWO)
    with shop.serve() as running:
        running.wait_until_started()
        site = site_of(running)
        outcomes = [later(order, site, "restart") for _ in range(2)]
        for future in outcomes:  # the later one may need a restart of its own
            steps, outcome = future.result()
            assert re.fullmatch(r"Restarted in \d+\.\d\d s\.", message(outcome))
            assert "making a dry run of the site process" in steps
            assert steps[-4:] == [
                "2 of 2 ready",
                "switching",
                "draining (0 requests)",
                "executing the next program",
            ]
        assert site_of(running) == site  # also the name of its socket
        running.wait_for_line("^Restarted in")
        assert result(site, "status")["state"] == "STARTED"


@pytest.mark.extended
def test_a_restart_that_fails_says_why_wherever_it_fails(shop: Shop) -> None:
    configure(shop, TWO)
    with shop.serve() as running:
        running.wait_until_started()
        site = site_of(running)
        before = shop.write("shop/urls.py", (shop.root / "shop/urls.py").read_text()).read_text()
        shop.write("shop/urls.py", BROKEN)
        _, outcome = order(site, "restart")
        assert isinstance(outcome, Error)
        assert outcome.text.startswith("The restart failed; the old code keeps serving")
        assert "Traceback (most recent call last):" in outcome.text
        shop.write("shop/urls.py", before)

        shop.listeners("bus.subscribe('start', lambda: 1 / 0, role='site')\n")
        _, outcome = order(site, "restart")
        assert isinstance(outcome, Error)
        assert "The site has restarted, but a start listener failed. Its workers serve." in outcome.text
        assert "shop/listeners.py, line 5: ZeroDivisionError" in outcome.text
        shop.listeners("")

        settings = (shop.root / "settings.py").read_text()
        shop.write("settings.py", settings + NOT_AS_NEXT_PROGRAM)
        steps, outcome = order(site, "restart")
        assert steps[-1] == "executing the next program"
        assert isinstance(outcome, Error)
        assert outcome.text.startswith("The restarted site did not start. Its workers keep serving.")
        assert "ValueError: not as the next program" in outcome.text
        assert ask(address_of(running))[0] == 200
        shop.write("settings.py", settings)
        running.send(signal.SIGUSR1)
        running.wait_for_line("^Restarted in")
        assert site_of(running) == site


@pytest.mark.extended
def test_one_server_is_restarted_alone(shop: Shop) -> None:
    configure(shop, {**BOTH, "other": {"BACKEND": GUNICORN}})
    with shop.serve() as running:
        running.wait_until_started()
        site = site_of(running)
        before = result(site, "status")["servers"]
        steps, outcome = order(site, "restart", alias="child")
        assert message(outcome).startswith("Restarted 'child' in ")
        assert [step for step in steps if step.startswith("booting")] == ["booting 'child'"]
        after = result(site, "status")["servers"]
        assert after["child"]["pid"] != before["child"]["pid"]
        assert after["other"]["pid"] == before["other"]["pid"]
        _, outcome = order(site, "restart", alias="thread")
        assert outcome == Error("The server 'thread' runs in the site process: restart the site.")
        _, outcome = order(site, "restart", alias="nonsense")
        assert outcome == Error(
            "There is no server or program 'nonsense'. The site has 'child', 'thread', 'other'.", status=2
        )


@pytest.mark.extended
def test_a_reload_that_a_stop_overtakes_gets_an_error(shop: Shop) -> None:
    configure(shop, TWO)
    with shop.serve() as running:
        running.wait_until_started()
        site = site_of(running)
        shop.write("shop/urls.py", "import time; time.sleep(60)\n")
        reload = request(site, "graceful", timeout=None)
        assert next(reload) == Step("booting 'default'")
        waiting = request(site, "restart", timeout=None)
        assert next(waiting) == Step("waiting for the reload that is under way")
        assert message(order(site, "stop")[1]).startswith("Stopped in")
        *_, outcome = reload
        assert isinstance(outcome, Error)
        assert "the site exits" in outcome.text.lower()
        *_, outcome = waiting
        assert isinstance(outcome, Error)
        assert "the site exits" in outcome.text.lower()
        running.wait()


@pytest.mark.extended
def test_the_socket_may_be_a_file_for_the_user_of_the_site_only(shop: Shop) -> None:
    path = shop.root / "control.sock"
    configure(shop, TWO, CONTROL=str(path))
    with shop.serve() as running:
        running.wait_until_started()
        status = path.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
        site = site_at(str(path))
        assert site.pid == running.pid
        assert [name for name in listed() if name.pid == running.pid] == []
        assert message(order(site, "restart")[1]).startswith("Restarted in")
        assert path.stat().st_ino == status.st_ino
        configure(shop, TWO, CONTROL=False)
        assert message(order(site, "restart")[1]).startswith("Restarted in")
        assert not path.exists()
        assert running.stop() == 0


@pytest.mark.extended
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")
@pytest.mark.parametrize("is_file", [False, True], ids=["abstract", "file"])
def test_a_site_of_root_that_becomes_another_user_is_of_that_user(
    open_folder: Path,  # noqa: F811
    interpreter: str,  # noqa: F811
    is_file: bool,
) -> None:
    shop = Shop(open_folder)
    (open_folder / "journal.txt").touch()
    (open_folder / "journal.txt").chmod(0o666)
    path = open_folder / "run" / "control.sock"
    path.parent.mkdir()
    servers = {"default": BOTH["thread"]}
    configure(shop, servers, USER="nobody", CONTROL=str(path) if is_file else True)
    with shop.start(interpreter, "manage.py", "runbus", **search_path(interpreter)) as running:
        running.wait_for_line("^Quit with")
        if is_file:
            assert path.stat().st_uid == 65534
            site = site_at(str(path))
        else:
            site = site_of(running)
        assert (site.uid, site.trouble) == (65534, "")
        assert message(order(site, "stop")[1]).startswith("Stopped in")


def test_a_site_whose_control_socket_cannot_be_made_serves(shop: Shop) -> None:
    configure(shop, TWO, CONTROL="/nowhere/control.sock")
    with shop.serve() as running:
        address = address_of(running)
        warning = "The control socket /nowhere/control.sock cannot be made: no such file or directory."
        running.wait_for_line(warning)
        assert ask(address)[0] == 200
        assert running.stop() == 0


@pytest.mark.extended
def test_a_site_serves_as_before_while_its_control_socket_is_abused(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2, "threads": 4}}})
    with shop.serve() as running:
        addresses = addresses_of(running)
        site = site_of(running)
        with Load(addresses, slow=0) as load:
            idle = []
            for _ in range(220):
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(site.name.address)
                idle.append(connection)
            ended = threading.Event()
            threads = [threading.Thread(target=abuse, args=(site.name.address, ended)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for _ in range(20):
                assert result(site, "status")["state"] == "STARTED"
            ended.set()
            for thread in threads:
                thread.join(30)
            for connection in idle:
                connection.close()
        assert load.failures == []
        assert load.answers
        assert result(site, "status")["condition"] == "ready"
        assert len([name for name in listed() if name.pid == running.pid]) == 1
        assert running.stop() == 0
        assert "Traceback" not in running.output


def abuse(address: str, ended: threading.Event) -> None:
    """Send garbage over short connections until ``ended`` is set."""
    while not ended.is_set():
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            connection.connect(address)
            connection.sendall(os.urandom(100_000))


FORKS = """
import os
import time


@bus.subscribe("graceful", role="site")
def leave():
    if not os.fork():
        os.setsid()
        time.sleep(60)
        os._exit(0)
"""


@pytest.mark.extended
def test_a_process_that_the_site_has_forked_does_not_keep_its_name(shop: Shop) -> None:
    shop.listeners(FORKS)
    configure(shop, {"default": {"BACKEND": GUNICORN}})
    with shop.serve() as running:
        running.wait_until_started()
        site = site_of(running)
        assert message(order(site, "graceful")[1]).startswith("Reloaded in")
        assert running.stop() == 0
        assert running.members() != []
        assert [name for name in listed() if name.pid == running.pid] == []


def has_namespaces() -> bool:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return shutil.which("unshare") is not None and not subprocess.run(command, check=False).returncode


@pytest.mark.extended
def test_sites_with_equal_pids_in_one_network_namespace_are_told_apart(tmp_path: Path) -> None:
    if not has_namespaces():
        pytest.skip("needs namespaces of PIDs")
    shops = []
    with contextlib.ExitStack() as stack:
        for name in ("shop", "blog"):
            (tmp_path / name).mkdir()
            shops.append(shop := Shop(tmp_path / name))
            configure(shop, {"default": BOTH["thread"]})
            command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable]
            running = stack.enter_context(shop.start(*command, "manage.py", "runbus"))
            running.wait_for_line("^Quit with")
        directories = [str(shop.root) for shop in shops]
        sites: list[FoundSite] = []

        def both_say_where_they_are() -> bool:  # for which a client waits a second
            sites[:] = [site for site in find() if site.directory in directories]
            return len(sites) == 2

        await_that(both_say_where_they_are, find)
        assert [site.pid for site in sites] == [1, 1]
        with pytest.raises(ControlError, match="choose one with --project, as their PIDs are equal"):
            choose(sites, pid=1)
        for name in ("shop", "blog"):
            site = choose(sites, pid=1, project=name)
            assert site.directory == str(tmp_path / name)
            assert message(order(site, "stop")[1]).startswith("Stopped in")
