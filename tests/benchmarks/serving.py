"""runbus beside the gunicorn command: requests per second, memory, and the time to the first 200."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.processes import free_port

from .load import requests_a_second
from .measure import table

WORKERS, THREADS = 2, 4
SETTINGS = f"""
SECRET_KEY = "benchmark"
ALLOWED_HOSTS = ["*"]
DATABASES = {{}}
USE_TZ = True
ROOT_URLCONF = "pages"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = [
    "django_wspbus",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
]
WSPBUS = {{"SERVERS": {{"default": {{"OPTIONS": {{"workers": {WORKERS}, "threads": {THREADS}}}}}}}}}
"""
PAGES = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("ok"))]
"""
MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
WSGI = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""

Command = Callable[[int], list[str]]


def runbus(port: int) -> list[str]:
    return [sys.executable, "manage.py", "runbus", str(port), "--verbosity", "0"]


def gunicorn(port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "gunicorn", "wsgi", "--preload", "--no-control-socket"),
        *("--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS), "--threads", str(THREADS)),
        *("--log-level", "warning"),
    ]


RIVALS: dict[str, Command] = {"django-wspbus": runbus, "gunicorn --preload": gunicorn}


@contextlib.contextmanager
def project() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in (("project", SETTINGS), ("pages", PAGES), ("manage", MANAGE), ("wsgi", WSGI)):
            (folder / f"{file}.py").write_text(text)
        yield folder


@dataclass
class Site:
    process: subprocess.Popen[bytes]
    port: int
    seconds_to_first_answer: float


@contextlib.contextmanager
def site(command: Command, folder: Path) -> Iterator[Site]:
    port = free_port()
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": str(Path.cwd())}
    began = time.perf_counter()
    process = subprocess.Popen(
        command(port), cwd=folder, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        await_answer(process, port, began + 60)
        yield Site(process, port, time.perf_counter() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def await_answer(process: subprocess.Popen[bytes], port: int, deadline: float) -> None:
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with status {process.returncode}.")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if client.recv(12) == b"HTTP/1.1 200":
                    return
        except OSError:
            time.sleep(0.001)
    raise TimeoutError(f"{process.args} did not answer.")


def run_requests(rounds: int = 10, seconds: float = 3) -> None:
    """Measure requests per second on kept-alive connections, in turn, while both servers run."""
    rates: dict[str, list[float]] = {name: [] for name in RIVALS}
    with project() as folder, contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(site(command, folder)).port for name, command in RIVALS.items()}
        for port in ports.values():
            requests_a_second(port, seconds=1)
        for round_ in range(rounds):
            names = list(RIVALS) if round_ % 2 else list(reversed(RIVALS))
            for name in names:
                rates[name].append(requests_a_second(ports[name], seconds=seconds))
    ours, theirs = rates["django-wspbus"], rates["gunicorn --preload"]
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    rows = {name: [f"{statistics.median(values):.0f}"] for name, values in rates.items()}
    table(f"Serving, {WORKERS} workers of {THREADS} threads", ["requests a second"], rows)
    print(f"\nRatio, median of {rounds} pairs: {ratio:.3f}")


def run_boot(rounds: int = 10) -> None:
    """Measure the time from exec to the first 200, in turn."""
    times: dict[str, list[float]] = {name: [] for name in RIVALS}
    with project() as folder:
        for command in RIVALS.values():  # compiles the bytecode
            with site(command, folder):
                pass
        for _ in range(rounds):
            for name, command in RIVALS.items():
                with site(command, folder) as booted:
                    times[name].append(booted.seconds_to_first_answer)
    ours, theirs = times["django-wspbus"], times["gunicorn --preload"]
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    rows = {name: [f"{statistics.median(values):.2f}"] for name, values in times.items()}
    table("From exec to the first 200", ["seconds"], rows)
    print(f"\nRatio, median of {rounds} pairs: {ratio:.2f}")


def run_memory(rounds: int = 3) -> None:
    """Measure the PSS of each process tree after some requests; also of the site process and a shell."""
    totals: dict[str, list[float]] = {name: [] for name in RIVALS}
    ones: dict[str, list[float]] = {"the site process": [], "manage.py shell": []}
    with project() as folder:
        for _ in range(rounds):
            for name, command in RIVALS.items():
                with site(command, folder) as running:
                    requests_a_second(running.port, seconds=1)
                    process = psutil.Process(running.process.pid)
                    totals[name].append(pss(process) + sum(map(pss, process.children(recursive=True))))
                    if name == "django-wspbus":
                        ones["the site process"].append(pss(process))
            ones["manage.py shell"].append(shell_pss(folder))
    rows = {name: [f"{statistics.median(values):.1f}"] for name, values in {**totals, **ones}.items()}
    table(f"Memory, PSS of the whole tree, {WORKERS} workers", ["MB"], rows)


def shell_pss(folder: Path) -> float:
    """Measure `manage.py shell --command`, the smallest process that has set up the project."""
    line = "import sys; print('up', flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        [sys.executable, "manage.py", "shell", "--command", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert shell.stdout is not None
        while b"up" not in shell.stdout.readline():
            pass
        return pss(psutil.Process(shell.pid))


def pss(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 2**20
