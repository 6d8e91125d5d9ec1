"""gunicorn's own settings under runbus: OPTIONS, the configuration file, and its hooks."""

from __future__ import annotations

import os
import signal

import pytest

from tests.projects import Project

from ..clients import ask
from ..conftest import GUNICORN, address_of, configure
from ..faults import rows
from ..load import await_that

HOOKS = """\
from shop.journal import note

workers = 7
threads = 2
proc_name = "from the file"


def on_starting(server): note(f"on_starting with {server.cfg.workers}, {server.cfg.proc_name}")
def when_ready(server): note("when_ready")
def pre_fork(server, worker): note("pre_fork")
def post_fork(server, worker): note("post_fork")
def post_worker_init(worker): note("post_worker_init " + worker.__class__.__name__)
def pre_request(worker, request): note("pre_request " + request.path)
def post_request(worker, request, environ, response): note("post_request " + response.status)
def child_exit(server, worker): note("child_exit")
def worker_exit(server, worker): note("worker_exit")
def nworkers_changed(server, new, old): note(f"nworkers_changed {old} {new}")
def on_exit(server): note("on_exit")
"""


def events_of(shop: Project, pid: int) -> list[str]:
    return [note.event for note in shop.notes() if note.pid == pid]


@pytest.mark.parametrize(
    "named",
    rows(["gunicorn_hooks.py", "file:gunicorn_hooks.py", "python:gunicorn_hooks"], 1),
)
def test_hooks_of_a_configuration_file_run_beside_ours_in_each_worker_and_options_win_over_the_file(
    shop: Project, named: str
) -> None:
    shop.write("gunicorn_hooks.py", HOOKS)
    configure(shop, {"shop": {"BACKEND": GUNICORN, "OPTIONS": {"config": named, "workers": 1}}})
    with shop.serve() as site:
        address = address_of(site, "shop")
        killed = int(ask(address)[1].split()[0])
        shop.expect_note("post_request 200 OK")
        os.kill(killed, signal.SIGKILL)
        successor = shop.expect_note("worker start", 2)[1].pid
        assert ask(address)[1] == f"{successor} STARTED"
        assert site.stop() == 0

    boots_and_answers = [
        *("post_fork", "post_worker_init ThreadWorker", "worker start"),
        *("pre_request /", "post_request 200 OK"),
    ]
    assert events_of(shop, killed) == boots_and_answers
    assert events_of(shop, successor) == [*boots_and_answers, "worker_exit", "worker stop", "worker exit"]
    events = events_of(shop, shop.notes("when_ready")[0].pid)
    assert events[:3] == ["nworkers_changed None 1", "on_starting with 1, from the file", "when_ready"]
    assert events[3] == "pre_fork"
    assert events.count("pre_fork") == 2
    assert {"child_exit", "on_exit"} <= set(events[4:])


TERM_AT_ONCE = """\
import os
import signal
from pathlib import Path

from shop.journal import note


def post_fork(server, worker):
    if not Path("asked").exists():
        Path("asked").touch()
        note("asked")
        os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("preload", [True, pytest.param(False, marks=pytest.mark.extended)])
def test_a_worker_that_gets_sigterm_before_it_handles_signals_exits(shop: Project, preload: bool) -> None:
    shop.write("conf.py", TERM_AT_ONCE)
    options = {"config": "conf.py", "workers": 1, "preload_app": preload}
    configure(shop, {"shop": {"BACKEND": GUNICORN, "OPTIONS": options}})
    with shop.serve() as site:
        address = address_of(site, "shop")
        (asked,) = shop.expect_note("asked")
        shop.expect_note("worker start", 1 + events_of(shop, asked.pid).count("worker start"))
        await_that(lambda: ask(address)[1] != f"{asked.pid} STARTED")
        assert site.stop() == 0


def test_an_option_in_the_file_that_the_site_owns_is_refused(shop: Project) -> None:
    shop.write("conf.py", 'bind = "127.0.0.1:9"\nworkers = 0.5\nnot_an_option = 1\n')
    configure(shop, {"shop": {"BACKEND": GUNICORN, "OPTIONS": {"config": "conf.py"}}})
    with shop.serve() as site:
        assert site.wait() == 1
        output = site.output
    assert "The server 'shop' did not start: " in output
    assert 'conf.py["bind"]: the site owns this option.' in output
    assert 'Set WSPBUS["SERVERS"]["shop"]["BIND"] instead.' in output
    assert 'conf.py["workers"]' in output
    assert "not_an_option" not in output  # a file may have names of its own


FAILURES = {
    "raises": ({"config": "conf.py"}, "1 / 0\n", "ZeroDivisionError"),
    "hook": ({"config": "conf.py"}, "def pre_fork(): pass\n", "pre_fork"),
    "module": ({"config": "python:no_such_module"}, "", "No module named 'no_such_module'"),
    "class": ({"config": "conf.py", "worker_class": "no.such.Worker"}, "", "no.such.Worker"),
}


@pytest.mark.parametrize("failure", rows(FAILURES, 1))
def test_a_configuration_that_fails_is_reported_once_with_the_server(shop: Project, failure: str) -> None:
    options, file, says = FAILURES[failure]
    shop.write("conf.py", file)
    configure(shop, {"shop": {"BACKEND": GUNICORN, "OPTIONS": options}})
    with shop.serve() as site:
        assert site.wait() == 1
        assert site.output.count(says) >= 1
        assert site.output.count("Traceback") <= 1
        assert "The server 'shop'" in site.output or 'WSPBUS["SERVERS"]["shop"]' in site.output
        assert site.members() == []


def test_a_setting_that_changes_before_the_child_reads_it_is_reported(shop: Project) -> None:
    configure(shop, {"shop": {"BACKEND": GUNICORN}})
    settings = (shop.root / "settings.py").read_text()
    only_in_the_child = "if 'DJANGO_WSPBUS_ORDER' in os.environ:"
    shop.write("settings.py", f"{settings}import os\n{only_in_the_child}\n    WSPBUS['X'] = 1\n")
    with shop.serve() as site:
        assert site.wait() == 1
        (line,) = site.lines
        assert "'shop' did not start: WSPBUS[\"X\"]: " in line
