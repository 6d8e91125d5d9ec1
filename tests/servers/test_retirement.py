"""Workers that are replaced one by one: stuck ones, and those that exceed a limit of RECYCLE."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import psutil
import pytest

from tests.processes import DEADLINE

from ..controlled import result, site_of
from .clients import ask
from .conftest import GUNICORN, Later, address_of, configure, hold, release
from .load import Load, Shop, await_that, status_of

HANGING = """
import ctypes
import threading


def hang(request):
    note("hangs")
    threading.Event().wait()


def keep_the_gil(request):
    note("hangs")
    ctypes.PyDLL(None).sleep(60)


urlpatterns += [path("hang/", hang), path("gil/", keep_the_gil)]
"""

LISTENERS = """\
@bus.subscribe("stop", role="worker")
def stop():
    note("stopped")
"""


def serve(
    shop: Shop, *, workers: int = 1, threads: int = 2, site: dict[str, Any] | None = None, **keys: Any
) -> None:
    """Configure a server with these keys, and a view that hangs."""
    shop.write("shop/urls.py", (shop.root / "shop/urls.py").read_text() + HANGING)
    shop.listeners(LISTENERS)
    options = {"workers": workers, "threads": threads}
    configure(shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": options, **keys}}, **(site or {}))


def workers_of(address: str) -> list[int]:
    workers: list[int] = status_of(address)["servers"]["default"]["workers"]
    return workers


def pid_of(address: str) -> int:
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


def test_two_requests_that_hang_harm_no_third_and_their_worker_is_replaced_and_killed(
    shop: Shop, later: Later
) -> None:
    serve(shop, threads=2, REQUEST_TIMEOUT=1)
    with shop.serve("-v2") as site:
        address = address_of(site)
        with hanging(shop, later, address, 2) as (old, _):
            assert pid_of(address) != old  # once REQUEST_TIMEOUT has passed, and a successor serves
            await_end(old)
            (stopped,) = shop.expect_note("stopped")
        assert stopped.pid == old
        assert pid_of(address) != old
        assert site.stop() == 0
        assert site.members() == []
    entries = re.findall(rf"is stuck in worker {old}: GET /hang/, begun .* seconds ago.*\n", site.output)
    assert len(entries) == 2
    assert site.output.count(" in hang\n") == 2
    assert site.output.count(f"Worker {old} of the server 'default' is killed: only stuck requests") == 1


def test_the_youngest_worker_goes_if_it_is_stuck_and_what_else_it_has_is_answered(
    shop: Shop, later: Later
) -> None:
    serve(shop, workers=2, threads=2, REQUEST_TIMEOUT=1)
    with shop.serve("-v2") as site:
        address = address_of(site)
        old, first = workers_of(address)[:2]
        os.kill(old, signal.SIGKILL)
        await_that(lambda: pid_of(address) not in (old, first))
        with hanging(shop, later, address) as (stuck,), Load(address, slow=0) as load:
            others = set(workers_of(address)) - {stuck}
            await_end(stuck)
            load.wait_for_all()
            load.finish()
            assert pid_of(address) != stuck
            assert others & set(workers_of(address))
        assert site.stop() == 0


def test_one_worker_that_retires_serves_until_its_successor_does_and_finishes_a_stream(
    shop: Shop, later: Later
) -> None:
    serve(shop, RECYCLE={"REQUESTS": 5})
    with shop.serve("-v2") as site:
        address = address_of(site)
        stream = hold(shop, later, address, "/stream/go")
        old = pid_of(address)
        with Load(address, slow=0) as load:
            load.wait_for(lambda answer: answer.pid != old, 3)
            answers = load.finish()
        release(shop, "go")

        assert stream.result() == (200, "begun, ended")
        assert max(answer.ended - answer.began for answer in answers) < DEADLINE
        await_end(old)
        assert site.stop() == 0
        assert site.members() == []


def test_the_number_of_workers_changes_and_survives_a_reload(shop: Shop) -> None:
    serve(shop, workers=1)
    with shop.serve("-v2") as site:
        address = address_of(site)
        assert result(site_of(site), "scale", server="default", workers=3)["before"] == 1
        await_that(lambda: len(workers_of(address)) == 3)
        site.send(signal.SIGUSR1)
        site.wait_for_line("Reloaded after")
        assert len(workers_of(address)) == 3
        before = workers_of(address)
        result(site_of(site), "scale", server="default", workers=2)
        await_that(lambda: len(workers_of(address)) == 2)
        assert set(workers_of(address)) < set(before)
        assert site.stop() == 0
