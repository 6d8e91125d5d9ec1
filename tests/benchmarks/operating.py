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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .measure import interleave, table
from .serving import MANAGE, PAGES, SETTINGS, await_answer, free_port
from .sessions import session

# One request


class Answering:
    """A thread worker of gunicorn, without its loop, that answers one request after another in this process.

    ``on``: with the hooks of a child of the site, its record, and the memory of log records.
    """

    def __init__(self, application: Any, *, on: bool) -> None:
        from gunicorn.config import Config
        from gunicorn.glogging import Logger
        from gunicorn.http import RequestParser
        from gunicorn.workers.gthread import ThreadWorker

        cfg = Config()
        cfg.set("errorlog", None)
        if on:
            from django_wspbus.application.in_flight import RequestsInFlight
            from django_wspbus.process.record import Record
            from django_wspbus.servers.gunicorn.hooks import Hooks, _chain

            self.record = Record.make(8)
            requests = RequestsInFlight(self.record, follows_sockets=True)  # as with REQUEST_TIMEOUT
            hooks: Any = object.__new__(Hooks)  # of which only these two are called
            hooks.process = SimpleNamespace(requests=requests)
            for name in ("pre_request", "post_request"):
                cfg.set(name, _chain(getattr(hooks, name), getattr(cfg, name)))
            application = requests.follow(application)
        self.worker = ThreadWorker(1, os.getpid(), [], None, 30, cfg, Logger(cfg))
        self.worker.wsgi = application
        ours, self.client = socket.socketpair()
        parser = RequestParser(cfg, iter([b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]), ("127.0.0.1", 1))
        self.request = next(parser)
        self.connection = SimpleNamespace(
            sock=ours, client=("127.0.0.1", 1), server=("127.0.0.1", 80), cfg=cfg, timeout=None
        )

    def call_hooks(self) -> None:
        """Do what differs: the hooks and the application, without gunicorn's work."""
        worker, cfg = self.worker, self.worker.cfg
        cfg.pre_request(worker, self.request)
        worker.wsgi(ENVIRONMENT, nothing)
        cfg.post_request(worker, self.request, ENVIRONMENT, None)

    def answer(self) -> None:
        self.worker.handle_request(self.request, self.connection)
        self.client.recv(65536)


ENVIRONMENT = {"wsgi.file_wrapper": list, "gunicorn.socket": None}


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


def run_cost(rounds: int = 60) -> None:
    """Answer requests in this process, in turn with and without what the site records of them.

    The times are those of the processor, and the lowest of all rounds, as other programs only add to them.
    """
    rows = {}
    pages = {"a response": whole, "a stream of two parts": streamed, "a page of Django": django_page()}
    for name, application in pages.items():
        off, on = (Answering(application, on=each) for each in (False, True))
        times = interleave(
            {"off": off.answer, "on": on.answer}, rounds=rounds, calls=300, timer=time.thread_time
        )
        rows[name] = cells(times)
    off, on = (Answering(whole, on=each) for each in (False, True))
    calls = {"off": off.call_hooks, "on": on.call_hooks}
    rows["the hooks alone"] = cells(interleave(calls, rounds=rounds, calls=3000, timer=time.thread_time))
    rows["a log record, at INFO"] = cells(log_times(rounds))
    table("One request, in process", ["µs without", "µs with", "µs more"], rows)


def cells(times: dict[str, list[float]]) -> list[str]:
    off, on = (min(times[each]) * 1e6 for each in ("off", "on"))
    return [f"{off:.1f}", f"{on:.1f}", f"{on - off:.2f}"]


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
