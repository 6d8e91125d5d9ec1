"""Threads of the project that run where they should not, and the warning that names them."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from django_wspbus.project.threads import foreign_threads

from ..projects import GUNICORN, THREADED, Project

READY = """\
import ctypes
import threading

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        threading.Thread(target=threading.Event().wait, name="Ticker", daemon=True).start()
        libc = ctypes.CDLL(None)
        native = ctypes.c_ulong()
        libc.pthread_create(ctypes.byref(native), None, libc.pause, None)
        libc.pthread_setname_np(native, b"rdk:main")
"""

ADVICE = "Start them in a listener of the channel 'start', or in a lifespan, instead of in AppConfig.ready()."


@pytest.mark.skipif(sys.platform != "linux", reason="it takes /proc")
@pytest.mark.parametrize(
    ("server", "warnings"),
    [
        (GUNICORN, ["site process, which serves nothing", "gunicorn's master end as it forks"]),
        pytest.param(THREADED, [], marks=pytest.mark.extended),
    ],
)
def test_each_process_where_a_thread_is_wrong_names_it_once(
    project: Project, server: dict[str, Any], warnings: list[str]
) -> None:
    project.write("shop/apps.py", READY)
    project.serves(server)
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == 0
    said = [line for line in site.lines if "Threads" in line]

    for line, where in zip(said, warnings, strict=True):
        assert f"{where}: Ticker, rdk:main (native). {ADVICE}" in line


@pytest.mark.extended
def test_a_daemon_names_threads_that_end_as_it_forks(project: Project) -> None:
    project.write("shop/apps.py", READY)
    project.serves(THREADED, DAEMONIZE=True, PIDFILE="site.pid")
    with project.serve() as site:
        assert site.wait() == 0

    (line,) = [line for line in site.lines if "Threads" in line]
    assert "Threads end as the site becomes a daemon: Ticker, rdk:main (native)." in line


def test_threads_of_a_debugger_are_not_named() -> None:
    done = threading.Event()
    threads = [threading.Thread(target=done.wait, name=name) for name in ("pydevd.Writer", "Ticker")]
    for thread in threads:
        thread.start()
    names = foreign_threads()
    done.set()
    for thread in threads:
        thread.join()

    assert "Ticker" in names
    assert "pydevd.Writer" not in names
