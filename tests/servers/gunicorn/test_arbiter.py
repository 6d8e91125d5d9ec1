"""The inside of gunicorn that this package depends on: a version that differs fails here first."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gunicorn
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import PollableMethodQueue, ThreadWorker
from gunicorn.workers.workertmp import WorkerTmp

from django_wspbus.process.record import Stage
from django_wspbus.servers.gunicorn.arbiter import SiteArbiter, SiteThreads
from django_wspbus.sockets.queue import queue_length
from tests.projects import Project

from ..clients import Client, ask
from ..conftest import GUNICORN, Later, configure, hold, release
from .site import OwnSite

OVERRIDDEN = [
    (Arbiter, SiteArbiter, ["setup", "manage_workers", "murder_workers", "handle_ttin", "handle_ttou"]),
    (ThreadWorker, SiteThreads, ["notify"]),
]
USED: list[tuple[Any, list[str]]] = [
    (Arbiter.run, ["manage_workers", "murder_workers", "wait_for_signals"]),
    (Arbiter.handle_chld, ["reap_workers"]),
    (Arbiter.manage_workers, ["WORKERS", "num_workers", "spawn_workers"]),
    (Arbiter.spawn_worker, ["worker_class", "WORKERS", "pre_fork", "post_fork", "worker_exit"]),
    (Arbiter.reap_workers, ["WORKERS", "child_exit"]),
    (Arbiter.murder_workers, ["WORKERS", "tmp", "last_update"]),
    (Worker.init_process, ["load_wsgi", "post_worker_init", "run"]),
    (Worker.load_wsgi, ["wsgi"]),
    (Worker.__init__, ["age"]),
    (Arbiter.setup, ["timeout"]),
    (Arbiter.handle_usr1, ["log", "reopen_files"]),
    (Worker.handle_usr1, ["log", "reopen_files"]),
    (Logger.reopen_files, ["logfile"]),
    (Worker.notify, ["tmp", "notify"]),
    (WorkerTmp.notify, ["_tmp"]),
    (ThreadWorker.__init__, ["worker_connections", "keepalived_conns", "pending_conns", "nr_conns", "tpool"]),
    (ThreadWorker.run, ["alive", "notify", "nr_conns", "worker_connections", "graceful_timeout"]),
    (ThreadWorker.enqueue_req, ["tpool", "submit"]),
    (ThreadWorker.handle_request, ["post_request", "wsgi"]),
    (ThreadWorker.handle_exit, ["method_queue", "defer"]),
    (PollableMethodQueue.defer, ["_queue"]),
    (ThreadPoolExecutor._adjust_thread_count, ["_max_workers", "_threads"]),  # type: ignore[attr-defined]
]


@pytest.mark.parametrize(("theirs", "ours", "names"), OVERRIDDEN, ids=["master", "threads"])
def test_this_version_of_gunicorn_has_the_methods_that_are_overridden(
    theirs: type, ours: type, names: list[str]
) -> None:
    for name in names:
        assert name in vars(theirs) or name in vars(Worker), f"gunicorn {gunicorn.__version__}: no {name}"
        parameters = [list(inspect.signature(getattr(each, name)).parameters) for each in (theirs, ours)]
        assert parameters[0] == parameters[1], f"gunicorn {gunicorn.__version__}: {name}"


@pytest.mark.parametrize(("function", "names"), USED, ids=lambda value: getattr(value, "__qualname__", ""))
def test_this_version_of_gunicorn_uses_what_is_relied_on(function: Any, names: list[str]) -> None:
    missing = {*names} - {*function.__code__.co_names}

    assert missing == set(), f"gunicorn {gunicorn.__version__}: {function.__qualname__} has no {missing}"


def test_the_number_of_workers_is_set_by_the_methods_of_its_property() -> None:
    assert (Arbiter.num_workers.fget, Arbiter.num_workers.fset) == (
        Arbiter._get_num_workers,
        Arbiter._set_num_workers,
    )


def serves(shop: Project, threads: int, **server: object) -> None:
    options = {"worker_class": "gthread", "workers": 1, "threads": threads, "keepalive": 60}
    configure(shop, {"shop": {"BACKEND": GUNICORN, "OPTIONS": options, **server}})


def test_a_worker_without_a_free_thread_leaves_new_connections_in_the_queue(
    shop: Project, later: Later
) -> None:
    serves(shop, threads=2)
    with OwnSite(shop) as site:
        site.child.serve()
        (pid,) = site.expect(1, Stage.SERVING)
        held = [hold(shop, later, site.address, f"/held/{name}") for name in ("one", "two")]
        with socket.create_connection(site.listening.getsockname()) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
            turns = site.record(pid).beat
            site.await_that(lambda: site.record(pid).beat > turns)  # the loop had its chance to accept
            assert site.record(pid).connections == 2
            assert queue_length(site.listening) == 1

            release(shop, "one")
            assert waiting.recv(12) == b"HTTP/1.1 200"
        release(shop, "two")
        assert [answer.result()[0] for answer in held] == [200, 200]


def test_kept_alive_connections_take_no_thread_from_new_ones(shop: Project) -> None:
    serves(shop, threads=1)
    with OwnSite(shop) as site:
        site.child.serve()
        site.expect(1, Stage.SERVING)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(contextlib.closing(Client(site.address))) for _ in range(3)]
            for client in clients * 2:
                assert client.ask("/")[0] == 200


def test_a_stuck_request_gives_its_worker_a_thread_for_the_connections_that_it_has_accepted(
    shop: Project, later: Later
) -> None:
    serves(shop, threads=1, REQUEST_TIMEOUT=0.3)
    with OwnSite(shop) as site:
        (pid,) = site.serve()
        with contextlib.closing(Client(site.address)) as client:
            assert client.ask("/")[0] == 200
            stuck = hold(shop, later, site.address, "/held/never")

            assert client.ask("/")[0] == 200
            assert ask(site.address)[0] == 200
            slots = site.record(pid).slots
            site.await_that(lambda: [each.name for each in slots.in_flight()] == ["GET /held/never"])
        os.kill(pid, signal.SIGKILL)
        assert stuck.exception() is not None


@pytest.mark.extended
def test_a_worker_with_threads_that_retires_outlives_gunicorns_timeout(shop: Project, later: Later) -> None:
    options = {"workers": 1, "threads": 2, "timeout": 4}
    configure(shop, {"shop": {"BACKEND": GUNICORN, "OPTIONS": options, "RECYCLE": {"AGE": 600}}})
    shop.listeners("import time\nbus.subscribe('stop', lambda: time.sleep(6))\n")
    with OwnSite(shop) as site:
        (pid,) = site.serve()
        answer = hold(shop, later, site.address, "/held/release")
        now = time.monotonic()
        site.record(pid).retiring = 1
        site.retire(pid, now + 60, now + 61)
        time.sleep(6)
        release(shop, "release")
        assert answer.result()[1] == "release answered"
        site.await_that(lambda: pid not in site.child.workers)
        assert site.child.progress.failed_stops == []
        assert "WORKER TIMEOUT" not in site.text
