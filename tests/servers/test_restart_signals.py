"""Signals and questions throughout a restart: none is lost, and none is deadly."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from .conftest import GUNICORN, KINDS, THREADED, address_of, configure, connect, is_free, release
from .load import (
    Load,
    Shop,
    addresses_of,
    attempt,
    await_that,
    await_version,
    held_start,
    pids,
    status_of,
    version_of,
)

Later = Callable[..., Future[Any]]

BOTH: dict[str, dict[str, Any]] = {
    "child": {"BACKEND": GUNICORN, "OPTIONS": {"threads": 4}},
    "thread": {"BACKEND": THREADED},
}

# A line after which the exit is asked for, and how often it has been written then.
MOMENTS = {
    "at once": ("Caught signal SIGUSR2", 1),
    "when tried": ("Restarting after", 1),
    "while stopping": ("Bus STOPPING", 1),
    "before the exec": ("Re-spawning", 1),
    "while starting": ("Bus STARTING", 2),
    "when started": ("Bus STARTED", 2),
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "project"
    folder.mkdir()
    return Shop(folder)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a name that is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_storm_of_signals_is_neither_lost_nor_deadly(shop: Shop) -> None:
    configure(shop, BOTH)
    signals = (signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP)
    with shop.serve("-v2") as site:
        addresses = [address_of(site, alias) for alias in BOTH]
        before = len(pids(site))
        with Load(addresses, keep_alive=0, slow=0, think=0.05) as load:
            ends, sent = time.monotonic() + 2, 0
            while time.monotonic() < ends:
                site.send(signals[sent % 3])
                sent += 1
                time.sleep(0.02)
            newest = shop.deploy()
            site.send(signal.SIGUSR2)
            load.wait_for_all(lambda answer: answer.version == newest)
            load.finish()
        assert sent > 10
        assert site.process.poll() is None
        for address in addresses:
            await_version(address, newest)
        await_that(lambda: len(pids(site)) == before, site.members)
        await_that(lambda: status_of(addresses[0])["condition"] == "ready")
        assert "Traceback" not in site.output
        assert site.stop() == 0
        assert site.members() == []


@pytest.mark.parametrize("moment", [*MOMENTS, 0.3, 0.7], ids=str)
def test_an_exit_at_any_moment_is_clean(shop: Shop, short: Path, moment: str | float) -> None:
    paths = [short / f"{alias}.sock" for alias in BOTH]
    binds = zip(BOTH.items(), paths, strict=True)
    servers = {alias: {**kind, "BIND": ["127.0.0.1:0", f"unix:{path}"]} for (alias, kind), path in binds}
    configure(shop, servers, PIDFILE="site.pid")
    with shop.serve("-v2") as site:
        addresses = [address for alias in BOTH for address in addresses_of(site, alias)]
        with Load(addresses, keep_alive=0, one_shot=1, slow=0) as load:
            load.wait_for_all()
            site.send(signal.SIGUSR2)
            if isinstance(moment, str):
                line, count = MOMENTS[moment]
                site.wait_for_line(line, count=count)
            else:
                time.sleep(moment)
            site.send(signal.SIGTERM)
            assert site.wait() == 0
            load.stop()
        assert site.members() == []
        assert all(map(is_free, addresses))
        assert "Traceback" not in site.output
    allowed = ("ConnectionRefusedError", "FileNotFoundError", "status 503")  # but not: reset, or no answer
    assert [each for each in load.failures if not each.outcome.startswith(allowed)] == []
    assert [path for path in (shop.root / "site.pid", *paths) if path.exists()] == []


def test_who_connects_meanwhile_waits_for_the_new_program(shop: Shop, later: Later) -> None:
    configure(shop, {"default": KINDS["threaded"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        shop.listeners(held_start())
        shop.deploy()
        site.send(signal.SIGUSR2)
        shop.expect_note("held")
        waiting = [later(version_of, address) for _ in range(20)]
        with connect(address) as gone:
            gone.sendall(b"GET /version/ HTTP/1.0\r\n\r\n")
        time.sleep(0.2)
        assert not any(answer.done() for answer in waiting)
        release(shop, "go")
        assert [answer.result() for answer in waiting] == [2] * 20
        assert site.stop() == 0


def test_what_is_asked_while_there_is_no_program_is_answered(shop: Shop, later: Later) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        good = (shop.root / "shop" / "listeners.py").read_text()
        shop.listeners(held_start())
        site.send(signal.SIGUSR2)
        site.wait_for_line("Re-spawning")
        asked = [later(attempt, address, what) for what in ("status", "graceful", "status")]
        shop.expect_note("held")
        shop.write("shop/listeners.py", good)
        new = shop.deploy()
        release(shop, "go")
        answers = [answer.result() for answer in asked]
        assert [set(answer) for answer in answers] == [{"result", "pid"}] * 3
        assert answers[0]["result"]["pid"] == site.pid
        await_version(address, new)
        assert site.stop() == 0
