"""The cost of replacing workers under load, after a number of requests or seconds."""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from tests.processes import free_port

from .clients import Load, Request
from .measure import table
from .reloading import answered, failures, slowest
from .rivals import script
from .serving import await_answer
from .sessions import session
from .shop import SETTINGS, THREADS, WORKERS, project

SETTLED = 1.5
"""Seconds of load that are not counted, at the beginning."""

VIEWS = """
import os
import time

from django.http import HttpResponse, StreamingHttpResponse


def index(request):
    return HttpResponse(str(os.getpid()))


def slow(request):
    time.sleep(1)
    return HttpResponse(str(os.getpid()))


def stream(request):
    def parts():
        for _ in range(100):
            yield b"x" * 1000
            time.sleep(0.1)

    return StreamingHttpResponse(parts())
"""
URLS = """
from django.urls import path

from . import views

urlpatterns = [path("", views.index), path("slow", views.slow), path("stream", views.stream)]
"""


@dataclass(frozen=True)
class Scenario:
    title: str
    workers: int
    threads: int
    streams: bool = False
    """True if a client always reads a response that takes ten seconds."""


SCENARIOS = {
    "several": Scenario("Replacing workers", WORKERS, THREADS),
    "one": Scenario("Replacing the only worker, with a client that reads for 10 s", 1, 4, streams=True),
}


@dataclass(frozen=True)
class Rival:
    command: Callable[[int, Scenario], list[str]]
    recycle: str = "{}"
    """RECYCLE of the settings."""
    seconds: float = 25
    """Seconds of load."""


REQUESTS = 1000


def runbus(port: int, scenario: Scenario) -> list[str]:
    return [sys.executable, "manage.py", "runbus", "--verbosity", "0"]


def gunicorn(port: int, scenario: Scenario) -> list[str]:
    return [
        *(script("gunicorn"), "shop.wsgi", "--preload", "--no-control-socket", "--bind", f"127.0.0.1:{port}"),
        *("--workers", str(scenario.workers), "--threads", str(scenario.threads)),
        *("--max-requests", str(REQUESTS)),
    ]


def granian(port: int, scenario: Scenario) -> list[str]:
    return [
        *(script("granian"), "shop.wsgi:application", "--interface", "wsgi", "--port", str(port)),
        *("--workers", str(scenario.workers), "--blocking-threads", str(scenario.threads)),
        *("--workers-lifetime", "60"),  # the least that it takes
    ]


RIVALS = {
    "django-wspbus, RECYCLE": Rival(runbus, f'{{"REQUESTS": {REQUESTS}}}'),
    "gunicorn, max_requests": Rival(gunicorn),
    "granian, workers-lifetime": Rival(granian, seconds=100),
}


class Reader:
    """A client that reads the stream again and again, in a thread; ``cut_off``: streams that broke off."""

    def __init__(self, port: int) -> None:
        self.cut_off = 0
        self._port = port
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(0.1):
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=30) as client:
                    client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    received = 0
                    while data := client.recv(65536):
                        received += len(data)
                        if self._done.is_set():
                            return
                    self.cut_off += received < 100_000
            except OSError:
                self.cut_off += 1

    def end(self) -> None:
        self._done.set()
        self._thread.join(15)


def run(
    rounds: int = 1, only: Collection[str] = tuple(RIVALS), scenarios: Collection[str] = tuple(SCENARIOS)
) -> None:
    """Run each rival in turn under load, and print a table of each scenario."""
    for scenario in (SCENARIOS[name] for name in scenarios):
        rows: dict[str, list[str]] = {}
        for name in only:
            requests: list[Request] = []
            cut_off = 0
            for _ in range(rounds):
                more, cut = measure(RIVALS[name], scenario)
                requests += more
                cut_off += cut
            rows[name] = cells(requests, cut_off)
        columns = [
            "workers seen",
            "requests",
            "failed",
            "streams cut off",
            "slowest, ms",
            "longest outage, s",
        ]
        table(f"{scenario.title}: {scenario.workers} x {scenario.threads} threads", columns, rows)


def measure(rival: Rival, scenario: Scenario) -> tuple[list[Request], int]:
    """Return the requests of all clients, and the number of streams that broke off."""
    port = free_port()
    with project() as folder:
        settings = SETTINGS.replace(
            f'"OPTIONS": {{"workers": {WORKERS}, "threads": {THREADS}}}',
            f'"OPTIONS": {{"workers": {scenario.workers}, "threads": {scenario.threads}}}, '
            f'"RECYCLE": {rival.recycle}',
        )
        assert "RECYCLE" in settings
        for file, text in (("settings", settings), ("views", VIEWS), ("urls", URLS)):
            (folder / f"shop/{file}.py").write_text(text)
        environment = {"SHOP_PORT": str(port), "PYTHONPATH": f"{folder}:{Path.cwd()}"}
        with session(rival.command(port, scenario), folder, environment) as process:
            await_answer(process, port, time.perf_counter() + 60)
            reader = Reader(port) if scenario.streams else None
            with Load(port) as load:
                began = time.monotonic()
                load.follow(began + SETTLED + rival.seconds)
                requests = load.finish()
            if reader is not None:
                reader.end()
    counted = [each for each in requests if each.began > began + SETTLED]
    return counted, reader.cut_off if reader is not None else 0


def cells(requests: list[Request], cut_off: int) -> list[str]:
    workers = {request.version for request in answered(requests)}
    return [
        *(str(len(workers)), str(len(requests)), failures(requests), str(cut_off)),
        *(slowest(requests), f"{outage(requests):.2f}"),
    ]


def outage(requests: list[Request]) -> float:
    """Return the longest time in which no client got an answer from the fast page."""
    times = sorted(request.ended for request in answered(requests) if request.path == "/")
    return max(later - earlier for earlier, later in itertools.pairwise(times))
