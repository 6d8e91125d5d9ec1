"""The servers to compare at a reload, and the way an operator reloads each of them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .clients import Load
from .shop import NEW, THREADS, WORKERS

PID_FILE = "gunicorn.pid"
UPGRADE_TIMEOUT = 5.0
"""Seconds, plus a boot, for gunicorn's new master to answer."""


@dataclass
class Served:
    """A running server under load."""

    process: subprocess.Popen[bytes]
    folder: Path
    load: Load


@dataclass(frozen=True)
class Rival:
    command: Callable[[int], list[str]]
    reload: Callable[[Served, float], None]
    """Takes the server and the seconds of a boot; returns before the reload is complete."""
    module: str = "django_wspbus"

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


def script(name: str) -> str:
    # After `python -m gunicorn`, its new master would import gunicorn's `http` instead of the standard one.
    return str(Path(sysconfig.get_path("scripts"), name))


def runbus(port: int) -> list[str]:
    return [sys.executable, "manage.py", "runbus", "--verbosity", "0"]


def gunicorn(port: int) -> list[str]:
    return [
        *(script("gunicorn"), "shop.wsgi", "--no-control-socket", "--pid", PID_FILE),
        *("--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS), "--threads", str(THREADS)),
    ]


def gunicorn_preload(port: int) -> list[str]:
    return [*gunicorn(port), "--preload"]


def uvicorn(port: int) -> list[str]:
    return [
        *(script("uvicorn"), "shop.wsgi:application", "--interface", "wsgi", "--no-access-log"),
        *("--port", str(port), "--workers", str(WORKERS)),
    ]


def granian(port: int) -> list[str]:
    return [
        *(script("granian"), "shop.wsgi:application", "--interface", "wsgi"),
        *("--port", str(port), "--workers", str(WORKERS), "--blocking-threads", str(THREADS)),
    ]


def cherrypy(port: int) -> list[str]:
    return [sys.executable, "serve_cherrypy.py"]


def send(signum: int) -> Callable[[Served, float], None]:
    return lambda served, boot: served.process.send_signal(signum)


def upgrade(served: Served, boot: float) -> None:
    """Start a second master of gunicorn. If it answers, end the first master, else end the second."""
    served.process.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + boot + UPGRADE_TIMEOUT
    if served.load.follow(deadline, lambda: NEW in served.load.answered):
        served.process.terminate()
        return
    # A second master that has already ended has no PID file.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((served.folder / f"{PID_FILE}.2").read_text()), signal.SIGTERM)


RIVALS = {
    "django-wspbus graceful": Rival(runbus, send(signal.SIGUSR1)),
    "django-wspbus restart": Rival(runbus, send(signal.SIGUSR2)),
    "gunicorn, HUP": Rival(gunicorn, send(signal.SIGHUP)),
    "gunicorn --preload, HUP": Rival(gunicorn_preload, send(signal.SIGHUP)),
    "gunicorn --preload, USR2": Rival(gunicorn_preload, upgrade),
    "uvicorn, HUP": Rival(uvicorn, send(signal.SIGHUP), "uvicorn"),
    "granian, HUP": Rival(granian, send(signal.SIGHUP), "granian"),
    "CherryPy, restart": Rival(cherrypy, send(signal.SIGHUP), "cherrypy"),
}
