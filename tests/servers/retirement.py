"""A shop with views that hang, and questions about the workers that serve it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import psutil

from tests.processes import DEADLINE

from .clients import ask
from .conftest import GUNICORN, Later, configure
from .load import Shop, await_that, status_of

HANGING = """
import ctypes
import threading

EATEN = []


def hang(request):
    note("hangs")
    threading.Event().wait()


def keep_the_gil(request):
    note("hangs")
    ctypes.PyDLL(None).sleep(60)


def eat(request):
    EATEN.append(bytearray(os.urandom(1) * 200_000_000))
    return answer(request)


urlpatterns += [path("hang/", hang), path("gil/", keep_the_gil), path("eat/", eat)]
"""

LISTENERS = """\
@bus.subscribe("stop", role="worker")
def stop():
    note("stopped")
"""


def serve(
    shop: Shop,
    *,
    workers: int = 1,
    threads: int = 2,
    worker_class: str = "gthread",
    site: dict[str, Any] | None = None,
    **keys: Any,
) -> None:
    """Configure a server with these keys, and with views that hang."""
    shop.write("shop/urls.py", (shop.root / "shop/urls.py").read_text() + HANGING)
    shop.listeners(LISTENERS)
    options: dict[str, Any] = {"workers": workers, "worker_class": worker_class}
    if worker_class == "gthread":
        options["threads"] = threads
    configure(shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": options, **keys}}, **(site or {}))


def workers_of(address: str) -> list[int]:
    """Return the PIDs of the workers, without one that stands by."""
    workers: list[int] = status_of(address)["servers"]["default"]["workers"]
    return workers


def pid_of(address: str) -> int:
    """Return the PID of the worker that answers."""
    return int(ask(address)[1].split()[0])


def await_end(pid: int) -> None:
    await_that(lambda: not psutil.pid_exists(pid), lambda: pid)


@contextlib.contextmanager
def hanging(
    shop: Shop, later: Later, address: str, count: int = 1, path: str = "/hang/"
) -> Iterator[list[int]]:
    """Send requests that hang; yield the PIDs of the workers that have them. None of them gets an answer."""
    answers = [later(ask, address, path) for _ in range(count)]
    yield [note.pid for note in shop.expect_note("hangs", count)]
    for answer in answers:
        assert isinstance(answer.exception(DEADLINE), OSError | HTTPException)
