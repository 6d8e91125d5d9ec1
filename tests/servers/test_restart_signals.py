"""Signals and requests throughout a restart: none is lost, and none is deadly."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from .clients import connect, is_free
from .conftest import BOTH, Later, address_of, configure, release
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

# A line after which the exit is asked for, and how often it has been written then.
MOMENTS = {
    "at once": ("Caught signal SIGUSR2", 1),
    "when tried": ("Restarting after", 1),
    "while stopping": ("Bus STOPPING", 1),
    "before the exec": ("Re-spawning", 1),
    "while starting": ("Bus STARTING", 2),
    "when started": ("Bus STARTED", 2),
}


@pytest.mark.extended
def test_a_storm_of_signals_is_neither_lost_nor_deadly(shop: Shop) -> None:
    configure(shop, BOTH)
    signals = (signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP)
    with shop.serve("-v2") as site:
        addresses = [address_of(site, alias) for alias in BOTH]
        before = len(pids(site))
        with Load(addresses, keep_alive=0, slow=0, think=0.05) as load:
            for sent in range(99):
                site.send(signals[sent % 3])
                time.sleep(0.02)  # so that they come at many moments
            newest = shop.deploy()
            site.send(signal.SIGUSR2)
            load.wait_for_all(lambda answer: answer.version == newest)
            load.finish()
        assert site.process.poll() is None
        for address in addresses:
            await_version(address, newest)
        await_that(lambda: len(pids(site)) == before, site.members)
        await_that(lambda: status_of(addresses[0])["condition"] == "ready")
        assert "Traceback" not in site.output
        assert site.stop() == 0
        assert site.members() == []


@pytest.mark.extended
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_exit_at_any_moment_is_clean(shop: Shop, short: Path, moment: str) -> None:
    paths = [short / f"{alias}.sock" for alias in BOTH]
    binds = zip(BOTH.items(), paths, strict=True)
    servers = {alias: {**kind, "BIND": ["127.0.0.1:0", f"unix:{path}"]} for (alias, kind), path in binds}
    configure(shop, servers, PIDFILE="site.pid")
    with shop.serve("-v2") as site:
        addresses = [address for alias in BOTH for address in addresses_of(site, alias)]
        with Load(addresses, keep_alive=0, one_shot=1, slow=0, think=0.02) as load:
            load.wait_for_all()
            site.send(signal.SIGUSR2)
            line, count = MOMENTS[moment]
            site.wait_for_line(line, count=count)
            site.send(signal.SIGTERM)
            assert site.wait() == 0
            load.finish_refused()
        assert site.members() == []
        assert all(map(is_free, addresses))
        assert "Traceback" not in site.output
    assert [path for path in (shop.root / "site.pid", *paths) if path.exists()] == []


@pytest.mark.extended
def test_requests_and_calls_made_while_there_is_no_program_wait_for_the_new_one(
    shop: Shop, later: Later
) -> None:
    configure(shop, BOTH)
    with shop.serve("-v2") as site:
        child, thread = (address_of(site, alias) for alias in BOTH)
        good = (shop.root / "shop" / "listeners.py").read_text()
        shop.listeners(held_start())
        site.send(signal.SIGUSR2)
        site.wait_for_line("Re-spawning")
        calls = [later(attempt, child, what) for what in ("status", "graceful", "status")]
        shop.expect_note("held")
        waiting = [later(version_of, thread) for _ in range(20)]
        with connect(thread) as gone:
            gone.sendall(b"GET /version/ HTTP/1.0\r\n\r\n")
        time.sleep(0.2)  # none of them is answered meanwhile
        assert not any(answer.done() for answer in waiting)
        shop.write("shop/listeners.py", good)
        newest = shop.deploy()
        release(shop, "go")

        assert [answer.result() for answer in waiting] == [newest] * 20
        answers = [call.result() for call in calls]
        assert [set(answer) for answer in answers] == [{"result", "pid"}] * 3
        assert answers[0]["result"]["pid"] == site.pid
        await_version(child, newest)
        assert site.stop() == 0
