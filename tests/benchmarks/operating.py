"""The cost of operating a site: for each request, and of ``wspbus status``."""

from __future__ import annotations

import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.processes import free_port

from .measure import interleave, table
from .serving import MANAGE, PAGES, SETTINGS, await_answer
from .sessions import session

# One request

CALLS = 10
"""Requests in one round."""


class Answering:
    """A thread worker of gunicorn, without its loop, that answers one request after another in this process.

    ``on``: as in a child of the site, which records its requests. ``paths``: those of the requests, in turn.
    """

    def __init__(self, application: Any, *, on: bool, paths: Sequence[str] = ("/",)) -> None:
        from gunicorn.config import Config
        from gunicorn.glogging import Logger
        from gunicorn.http import RequestParser
        from gunicorn.workers.gthread import ThreadWorker

        cfg = Config()
        cfg.set("errorlog", None)
        if on:
            from django_wspbus.application.in_flight import RequestsInFlight
            from django_wspbus.process.record import Record
            from django_wspbus.servers.gunicorn.hooks import ending_requests

            self.record = Record.make(8)
            requests = RequestsInFlight(self.record)
            cfg.set("post_request", ending_requests(requests.end, cfg))
            application = requests.follow(application)
        self.worker = ThreadWorker(1, os.getpid(), [], None, 30, cfg, Logger(cfg))
        self.worker.wsgi = application
        ours, self.client = socket.socketpair()
        heads = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
        self.requests = cycle([next(RequestParser(cfg, iter([head]), ("127.0.0.1", 1))) for head in heads])
        self.connection = SimpleNamespace(
            sock=ours, client=("127.0.0.1", 1), server=("127.0.0.1", 80), cfg=cfg, timeout=None
        )

    def record_alone(self) -> None:
        """Do what differs: the application and the hook after it, without gunicorn's work."""
        self.worker.wsgi(ENVIRONMENT, nothing)
        self.worker.cfg.post_request(self.worker, None, ENVIRONMENT, None)

    def answer(self) -> None:
        self.worker.handle_request(next(self.requests), self.connection)
        self.client.recv(65536)


ENVIRONMENT = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/"}


def nothing(*arguments: Any) -> None: ...


def whole(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def streamed(environ: Any, start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    yield b"o"
    yield b"k"


def django_page() -> Any:
    """Return Django's application with a page of two bytes."""
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(
        SECRET_KEY="benchmark",
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF=(path("", lambda request: HttpResponse("ok")),),
        LOGGING_CONFIG=None,
    )
    django.setup()
    return get_wsgi_application()


def run_cost(rounds: int = 1500) -> None:
    """Answer requests in this process, in turn with and without what the site records of them.

    The times are those of the processor. Other programs only add to them: a round is short, and the time that
    is shown is that below which a tenth of the rounds stayed.
    """
    pages: dict[str, tuple[Any, Sequence[str]]] = {
        "a response of two bytes": (whole, ["/"]),
        "the same, two paths in turn": (whole, ["/", "/shop/products/4711/"]),
        "a stream of two parts": (streamed, ["/"]),
        "a page of Django": (django_page(), ["/"]),
    }
    rows = {}
    for name, (application, paths) in pages.items():
        off, on = (Answering(application, on=each, paths=paths) for each in (False, True))
        rows[name] = cells(time_each({"off": off.answer, "on": on.answer}, rounds))
    off, on = (Answering(whole, on=each) for each in (False, True))
    rows["recording alone"] = cells(time_each({"off": off.record_alone, "on": on.record_alone}, rounds))
    rows["a log record, at INFO"] = cells(log_times(rounds // 25))
    table("One request, in process", ["µs without", "µs with", "µs more"], rows)


def time_each(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    return interleave(calls, rounds=rounds, calls=CALLS, timer=time.thread_time)


def cells(times: dict[str, list[float]]) -> list[str]:
    off, on = (statistics.quantiles(times[each], n=10)[0] * 1e6 for each in ("off", "on"))
    return [f"{off:.1f}", f"{on:.1f}", f"{on - off:.1f}"]


def log_times(rounds: int) -> dict[str, list[float]]:
    """Time a log record that a handler writes to a file, without and with the memory of log records."""
    from django_wspbus.process.log_memory import log_memory
    from django_wspbus.process.record import Record

    logger = logging.getLogger("benchmark")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.FileHandler(os.devnull))
    record = Record.make(0)

    def log() -> None:
        logger.info("answered %s", "/")

    times: dict[str, list[float]] = {"off": [], "on": []}
    for _ in range(rounds):
        log_memory.stop()
        times["off"] += interleave({"off": log}, rounds=1, calls=300, timer=time.thread_time)["off"]
        log_memory.keep(record.ring.write)
        times["on"] += interleave({"on": log}, rounds=1, calls=300, timer=time.thread_time)["on"]
    log_memory.stop()
    return times


# The command


def run_status(rounds: int = 20) -> None:
    """Time ``python -m django_wspbus status`` with few and many workers."""
    rows = {"python -c pass": [milliseconds([sys.executable, "-c", "pass"], rounds)]}
    for workers in (1, 64):
        rows[f"status, {workers} workers" if workers > 1 else "status, 1 worker"] = [
            time_status(workers, rounds)
        ]
    table("The command", ["ms"], rows)


def time_status(workers: int, rounds: int) -> str:
    import tempfile

    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = SETTINGS.replace('"workers": 2', f'"workers": {workers}')
        for file, text in (("project", options), ("pages", PAGES), ("manage", MANAGE)):
            (folder / f"{file}.py").write_text(text)
        command = [sys.executable, "manage.py", "runbus", str(port), "--verbosity", "0"]
        environment = {"PYTHONPATH": str(Path.cwd()), "DJANGO_SETTINGS_MODULE": "project"}
        with session(command, folder, environment) as process:
            await_answer(process, port, time.perf_counter() + 60)
            status = [sys.executable, "-m", "django_wspbus", "status", "--pid", str(process.pid)]
            shown = subprocess.run([*status, "--json"], capture_output=True, check=False).stdout
            assert len(json.loads(shown)["servers"]["default"]["workers"]) == workers
            return milliseconds(status, rounds)


def milliseconds(command: list[str], rounds: int) -> str:
    """Return the median of the time from the start of a command to its end."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - began)
    return f"{statistics.median(times) * 1000:.0f}"
