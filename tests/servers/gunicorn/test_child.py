"""What gunicorn's master does before it forks, and where its logs go."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config

from django_wspbus import Refusal, bus
from django_wspbus.children.spawn import ChildStart, StartedChild
from django_wspbus.conf import Autoreload, Recycle, ServerSettings, Settings
from django_wspbus.process.asking import RemoteSite
from django_wspbus.process.reports import RetirementPolicy
from django_wspbus.servers.gunicorn import GunicornServer
from django_wspbus.servers.gunicorn.hooks import Hooks
from django_wspbus.servers.gunicorn.logging import project_logger
from django_wspbus.servers.gunicorn.retirement import check_timeout_in_force, take_policy
from tests.projects import Project

from ..clients import ask
from ..conftest import GUNICORN, address_of, configure

# A database with a pool, as PostgreSQL's; the application uses it, and starts a thread, at its import.
POOLED = """\
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite

from shop.journal import note


class DatabaseWrapper(SQLite):
    def close_pool(self):
        note("pool closed")
"""
BUSY_IMPORT = """\
import threading

from django.core.wsgi import get_wsgi_application
from django.db import connection

application = get_wsgi_application()
connection.ensure_connection()
threading.Thread(target=threading.Event().wait, name="Lost", daemon=True).start()
"""
LISTENER = """\
import threading

from django.db import connection


def tell():
    names = [thread.name for thread in threading.enumerate() if thread.name == "Lost"]
    note(f"connection {connection.connection is not None}, threads {names}")


bus.subscribe("start", tell)
"""


@pytest.mark.parametrize("preload", [True, pytest.param(False, marks=pytest.mark.extended)])
def test_a_preloaded_application_leaves_no_connection_and_no_silent_loss_of_threads(
    shop: Project, preload: bool
) -> None:
    shop.write("pooled/__init__.py", "")
    shop.write("pooled/base.py", POOLED)
    shop.write("busy.py", BUSY_IMPORT)
    shop.listeners(LISTENER)
    options = {"workers": 2} if preload else {"workers": 2, "preload_app": False}
    server = {"BACKEND": GUNICORN, "APPLICATION": "busy.application", "OPTIONS": options}
    wspbus = {"SERVERS": {"shop": {**server, "BIND": "127.0.0.1:0"}}}
    shop.configure(WSPBUS=wspbus, DATABASES={"default": {"ENGINE": "pooled", "NAME": "db.sqlite3"}})
    with shop.serve() as site:
        address_of(site, "shop")
        assert site.stop() == 0

    lines = [line for line in site.lines if "Threads in" in line]
    if preload:
        assert shop.events().count("connection False, threads []") == 2
        assert "pool closed" in shop.events()
        assert len(lines) == 1
        assert "Threads in gunicorn's master end as it forks: Lost. Start them in a listener" in lines[0]
    else:
        assert shop.events() == ["connection True, threads ['Lost']"] * 2
        assert lines == []


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"named": {"format": "{name} | {levelname} | {message}", "style": "{"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "all.log", "formatter": "named"}},
    "root": {"handlers": ["file"], "level": "INFO"},
    "loggers": {
        "gunicorn.error": {"level": "INFO"},
        "gunicorn.access": {"level": "INFO"},
        "django_wspbus": {"level": "INFO"},
    },
}


def test_logs_go_to_the_handlers_of_the_project_but_for_those_that_options_name(shop: Project) -> None:
    options = {"errorlog": "error.log", "accesslog": "access.log", "loglevel": "debug"}
    server = {"BACKEND": GUNICORN, "BIND": "127.0.0.1:0"}
    servers = {"shop": server, "own": {**server, "OPTIONS": options}}
    shop.configure(WSPBUS={"SERVERS": servers}, LOGGING=LOGGING)
    with shop.serve() as site:
        for alias in servers:
            ask(address_of(site, alias), f"/?{alias}")
        assert site.stop() == 0
    logged = (shop.root / "all.log").read_text()

    assert logged.count("gunicorn.error | INFO | Starting gunicorn") == 1
    assert re.search(r'^gunicorn\.access \| INFO \| .*"GET /\?shop HTTP/1\.1" 200', logged, re.MULTILINE)
    assert re.search(r"^django_wspbus \| INFO \| Bus STARTED", logged, re.MULTILINE)
    assert "gunicorn" not in "".join(line for line in site.lines if "http://" not in line)
    assert "?own" not in logged
    assert '"GET /?own HTTP/1.1" 200' in (shop.root / "access.log").read_text()
    assert "[DEBUG]" in (shop.root / "error.log").read_text()


def test_without_logging_of_the_project_only_warnings_are_seen(shop: Project) -> None:
    configure(shop, {"shop": {"BACKEND": GUNICORN}})
    with shop.serve() as site:
        ask(address_of(site, "shop"))
        assert site.stop() == 0

    assert len(site.lines) == 3  # the banner


@pytest.mark.parametrize(
    "options", [{"logconfig": "log.ini"}, {"logconfig_dict": {"version": 1}}, {"capture_output": True}]
)
def test_logs_that_options_configure_as_a_whole_are_left_to_its_own_logger(
    options: dict[str, object],
) -> None:
    cfg = Config()

    assert project_logger(cfg, options) is cfg.logger_class
    assert cfg.errorlog == "-"


def test_a_level_alone_leaves_the_log_to_the_project() -> None:
    loggers = [logging.getLogger(name) for name in ("gunicorn.error", "gunicorn.access")]
    before = [(each, each.level, each.propagate, list(each.handlers)) for each in loggers]
    cfg = Config()
    cfg.set("loglevel", "debug")
    try:
        project_logger(cfg, {"loglevel": "debug"})(cfg)
        assert [each.propagate for each in loggers] == [True, True]
        assert loggers[0].level == logging.DEBUG
        assert loggers[0].handlers == before[0][3]
    finally:
        for each, level, propagate, handlers in before:
            each.setLevel(level)
            each.propagate, each.handlers[:] = propagate, handlers


def test_a_logger_class_of_the_project_is_taken_as_it_is(shop: Project) -> None:
    shop.write(
        "shop/logs.py",
        "from gunicorn.glogging import Logger\n\n\nclass Loud(Logger):\n"
        "    def info(self, *args):\n        print('loud', *args, flush=True)\n",
    )
    configure(shop, {"shop": {"BACKEND": GUNICORN, "OPTIONS": {"logger_class": "shop.logs.Loud"}}})
    with shop.serve() as site:
        address_of(site, "shop")
        assert site.stop() == 0

    assert "loud Starting gunicorn" in site.output


def test_the_hook_that_gunicorn_calls_in_its_master_too_has_no_effect_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        site = RemoteSite(ours, "master")
        started = StartedChild(ChildStart("shop", "module:function"), {}, 0, ours, -1)
        child = Hooks(started, Settings(servers={"shop": settings()}), site)
        child.worker_exit(None, None)  # type: ignore[arg-type]

        assert child.master == os.getpid()
        assert bus.state is bus.states.STOPPED


# What is known before it starts


def settings(**options: object) -> ServerSettings:
    return ServerSettings(
        alias="shop", backend=GUNICORN, bind=(), application=None, mounts={}, options=options
    )


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"workers": 2, "worker_class": "gthread", "threads": 4, "config": "x.py", "timeout": 5}, {}),
        ({"worker": 2}, {"worker": "Did you mean 'workers'?"}),
        ({"workers": "many"}, {"workers": "got 'many'. It takes a whole number from 1 to 1000."}),
        ({"workers": 100_000}, {"workers": "got 100000. It takes a whole number from 1 to 1000."}),
        ({"workers": "2", "threads": True}, {"threads": "got True. It takes a whole number above 0."}),
        ({"threads": 0, "worker_connections": 0}, {"threads": "got 0", "worker_connections": "got 0"}),
        ({"workers": 0, "backlog": None}, {"workers": "got 0", "backlog": "got None"}),
        ({"timeout": -1}, {"timeout": "gunicorn does not take -1"}),
        ({"config": b"x.py"}, {"config": "got b'x.py'. It takes the path of gunicorn's own file"}),
        ({"config": Path("x.py"), "accesslog": Path("x.log")}, {}),
        ({"bind": ":80"}, {"bind": 'Set WSPBUS["SERVERS"]["shop"]["BIND"] instead.'}),
        (
            {"graceful_timeout": 5, "reload": True},
            {"graceful_timeout": "GRACEFUL_TIMEOUT", "reload": "AUTORELOAD"},
        ),
    ],
)
def test_options_are_checked_one_by_one(options: dict[str, object], found: dict[str, str]) -> None:
    problems = list(GunicornServer.check_options(settings(**options)))

    assert [each.path for each in problems] == [
        f'WSPBUS["SERVERS"]["shop"]["OPTIONS"]["{name}"]' for name in found
    ]
    for problem, says in zip(problems, found.values(), strict=True):
        assert says in problem.line


@pytest.mark.parametrize(
    ("config", "is_missing"),
    [("file:no.py", True), ("no.py", True), (__file__, False), ("python:no.such", False), (None, False)],
)
def test_a_configuration_file_must_be_there(config: str | None, is_missing: bool) -> None:
    problems = list(GunicornServer.check_machine(settings(config=config)))

    assert [each.id for each in problems] == (["E016"] if is_missing else [])


def in_force(**options: object) -> dict[str, Any]:
    site = Settings(servers={}, autoreload=None)
    return GunicornServer.effective_options(settings(**options), site)


def test_common_options_are_checked_without_the_table_of_gunicorns_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gunicorn.config", None)

    assert list(GunicornServer.check_options(settings(workers=2, threads=4, config="gunicorn.conf.py"))) == []
    with pytest.raises(ImportError):
        list(GunicornServer.check_options(settings(keepalive=2)))


def test_the_options_in_force_show_what_is_not_gunicorns_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert in_force(threads=3) == {"workers": 1, "preload_app": True, "threads": 3}
    monkeypatch.setenv("WEB_CONCURRENCY", "5")
    assert in_force()["workers"] == 5
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("workers = 3\npreload_app = False\nother = 1\n")
    assert in_force(config=config) == {"config": str(config), "workers": 3, "preload_app": False}
    assert in_force(config=str(config), workers=4)["workers"] == 4
    reloading = Settings(servers={}, autoreload=Autoreload())
    assert GunicornServer.effective_options(settings(), reloading)["workers"] == 1


@pytest.mark.parametrize("value", ["0", "-1", "many", "", "2.5", "100000"])
def test_a_wrong_number_of_workers_in_the_environment_is_one_finding(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", value)
    (problem,) = GunicornServer.check_options(settings(worker_class="sync"))

    assert problem.line == (
        'WSPBUS["SERVERS"]["shop"]["OPTIONS"]["workers"]: the environment variable WEB_CONCURRENCY is '
        f"{value!r}. It takes a whole number from 1 to 1000. (django_wspbus.E012)"
    )


def test_none_in_the_environment_do_no_harm_where_the_options_say_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "0")
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("workers = 2\n")

    assert list(GunicornServer.check_options(settings(workers=2))) == []
    assert list(GunicornServer.check_options(settings(config=config))) == []
    assert in_force(config=config)["workers"] == 2
    config.write_text("threads = 2\n")
    with pytest.raises(Refusal, match=r"the environment variable WEB_CONCURRENCY is '0'\."):
        in_force(config=config)
    config.write_text("workers = 0\n")
    with pytest.raises(Refusal, match=r'gunicorn.conf.py\["workers"\]: got 0\.'):
        in_force(config=config)


# When its workers retire


def policy(options: dict[str, object], **keys: object) -> RetirementPolicy:
    cfg = Config()
    for name, value in options.items():
        cfg.set(name, value)
    found = take_policy(replace(settings(), **keys), cfg)
    assert (cfg.max_requests, cfg.max_requests_jitter) == (0, 0)
    return found


def test_gunicorns_number_of_requests_is_that_of_the_policy() -> None:
    assert policy({}) == RetirementPolicy()
    assert policy({"max_requests": 500, "max_requests_jitter": 50}) == RetirementPolicy(
        requests=500, requests_jitter=50
    )
    recycle = Recycle(requests=100, memory=10**9, age=60)
    assert policy({}, recycle=recycle, request_timeout=5) == RetirementPolicy(
        requests=100, memory=10**9, age=60, request_timeout=5
    )


def test_the_number_of_requests_is_set_once(tmp_path: Path) -> None:
    server = replace(settings(max_requests=500), recycle=Recycle(requests=100))
    (problem,) = GunicornServer.check_options(server)
    assert problem.line == (
        'WSPBUS["SERVERS"]["shop"]["OPTIONS"]["max_requests"]: '
        'WSPBUS["SERVERS"]["shop"]["RECYCLE"]["REQUESTS"] '
        "says this as well. Leave one of them out. (django_wspbus.E021)"
    )
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("max_requests = 500\n")
    server = replace(settings(config=str(config)), recycle=Recycle(requests=100))
    assert list(GunicornServer.check_options(server)) == []
    with pytest.raises(Refusal, match=r'gunicorn.conf.py\["max_requests"\]: .*E021'):
        GunicornServer.effective_options(server, Settings(servers={}))


@pytest.mark.parametrize(
    ("options", "limit", "warns"),
    [
        ({}, 60, True),
        ({}, 20, False),
        ({}, None, False),
        ({"threads": 4}, 60, False),
        ({"worker_class": "gthread"}, 60, False),
        ({"worker_class": "gunicorn.workers.sync.SyncWorker", "timeout": 50}, 60, True),
        ({"timeout": 0}, 60, False),
        ({"timeout": 60}, 60, True),
        ({"timeout": 90}, 60, False),
        ({"config": __file__}, 60, False),
    ],
)
def test_a_timeout_that_ends_a_sync_worker_before_it_is_replaced_is_a_warning(
    options: dict[str, object], limit: float | None, warns: bool
) -> None:
    found = list(GunicornServer.check_options(replace(settings(**options), request_timeout=limit)))

    assert [each.id for each in found] == (["W002"] if warns else [])
    assert not any(each.is_error for each in found)


@pytest.mark.parametrize(
    ("options", "timeout", "where"),
    [
        ({"config": "conf.py"}, 30, "config"),
        ({"config": "conf.py", "timeout": 30}, 30, "timeout"),
        ({"config": "conf.py"}, 0, None),
        ({"config": "conf.py"}, 90, None),
        ({"config": "conf.py", "threads": 2}, 30, None),
        ({"timeout": 30}, 30, None),
    ],
)
def test_a_timeout_of_a_configuration_file_is_compared_once_it_is_read(
    options: dict[str, object], timeout: int, where: str | None
) -> None:
    cfg = Config()
    cfg.set("timeout", timeout)
    cfg.set("threads", options.get("threads", 1))
    server = replace(settings(**options), request_timeout=60)

    found = [(each.id, each.path) for each in check_timeout_in_force(server, cfg)]
    assert found == ([] if where is None else [("W002", server.path("OPTIONS", where))])
