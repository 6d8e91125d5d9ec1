"""The workers that a reload has replaced: how long they may answer, and what ends them earlier."""

from __future__ import annotations

import re
import signal

import pytest

from tests.processes import RunningSite

from .clients import ask
from .conftest import Later, address_of, hold, master_of, release
from .load import Shop, await_that, status_of
from .retirement import await_end, hanging, pid_of, serve

pytestmark = pytest.mark.extended


def reload(site: RunningSite) -> None:
    before = site.output.count("Reloaded in")
    site.send(signal.SIGUSR1)
    await_that(lambda: site.output.count("Reloaded in") > before, lambda: site.output)


def test_a_replaced_worker_has_graceful_timeout_and_not_the_time_of_an_exit(shop: Shop, later: Later) -> None:
    serve(shop, site={"STOP_TIMEOUT": 1, "GRACEFUL_TIMEOUT": 60})
    with shop.serve() as site:
        address = address_of(site)
        answer = hold(shop, later, address, "/held/go")
        old = pid_of(address)
        reload(site)
        (child,) = status_of(address)["servers"]["default"]["leaving"]
        await_that(lambda: pid_of(address) != old)
        with pytest.raises(TimeoutError):
            answer.result(3)  # thrice the time of an exit
        release(shop, "go")
        assert answer.result() == (200, "go answered")
        await_end(child)
        assert site.stop() in (0, 70)  # a busy machine may need more than the second of this exit


def test_when_graceful_timeout_is_over_requests_are_cut_off_and_named(shop: Shop, later: Later) -> None:
    serve(shop, site={"GRACEFUL_TIMEOUT": 1})
    with shop.serve() as site:
        address = address_of(site)
        answer = hold(shop, later, address, "/held/never")
        old = pid_of(address)
        reload(site)
        site.wait_for_line(rf"requests cut off after (1|0\.9\d*) seconds: GET /held/never \(worker {old}\)")
        assert answer.exception() is not None
        shop.expect_note("stopped")
        await_end(old)
        assert site.stop() == 0


def test_a_further_reload_ends_the_generation_before_the_last_one(shop: Shop, later: Later) -> None:
    serve(shop, threads=1)  # a worker with a request accepts no other, although a reload has replaced it
    with shop.serve() as site:
        address = address_of(site)
        first = hold(shop, later, address, "/held/never")
        (oldest,) = (note.pid for note in shop.notes("never waits"))
        reload(site)
        second = hold(shop, later, address, "/held/go")
        reload(site)
        site.wait_for_line(
            r"requests cut off after .* seconds, as a further reload ended this generation: GET /held/never"
        )
        assert first.exception() is not None
        await_end(oldest)
        # The master of a worker ends a moment after it.
        await_that(lambda: len(status_of(address)["servers"]["default"]["leaving"]) == 1)
        release(shop, "go")
        assert second.result() == (200, "go answered")
        assert site.stop() == 0
        assert site.members() == []


def test_an_exit_shortens_the_time_of_workers_that_a_reload_has_replaced(shop: Shop, later: Later) -> None:
    serve(shop, site={"STOP_TIMEOUT": 8})
    with shop.serve() as site:
        address = address_of(site)
        answer = hold(shop, later, address, "/held/never")
        old = pid_of(address)
        reload(site)
        await_that(lambda: pid_of(address) != old)
        assert site.stop() == 70
        assert answer.exception() is not None
        await_that(lambda: site.members() == [], site.members)
    assert re.search(r"requests cut off after \d\.?\d* seconds: GET /held/never", site.output)
    assert [note.pid for note in shop.expect_note("stopped", 2)]


def test_a_request_that_gets_stuck_after_a_reload_is_logged_and_its_worker_killed(
    shop: Shop, later: Later
) -> None:
    serve(shop, REQUEST_TIMEOUT=1)
    with shop.serve() as site:
        address = address_of(site)
        with hanging(shop, later, address) as (old,):
            reload(site)
            site.wait_for_line(f"is stuck in worker {old}: GET /hang/")
            site.wait_for_line(f"Worker {old} of the server 'default' is killed: only stuck requests")
            await_end(old)
        await_that(lambda: status_of(address)["servers"]["default"]["leaving"] == [])
        assert site.stop() == 0
        assert site.members() == []


def test_a_restart_of_the_site_keeps_the_time_of_a_child_that_drains_and_what_retires(
    shop: Shop, later: Later
) -> None:
    serve(shop, workers=2, RECYCLE={"REQUESTS": 8}, site={"GRACEFUL_TIMEOUT": 8})
    with shop.serve() as site:
        address = address_of(site)
        answer = hold(shop, later, address, "/held/never")
        site.send(signal.SIGUSR2)
        site.wait_for_line("Restarted in")
        site.wait_for_line(r"requests cut off after (8|7\.9\d*) seconds: GET /held/never")
        assert answer.exception() is not None
        before = set(status_of(address)["servers"]["default"]["workers"])
        for _ in range(40):
            assert ask(address)[0] == 200
        await_that(lambda: not before & set(status_of(address)["servers"]["default"]["workers"]))
        assert site.stop() == 0
        assert site.members() == []


def test_the_workers_of_a_killed_master_finish_what_they_have(shop: Shop, later: Later) -> None:
    serve(shop, REQUEST_TIMEOUT=60, site={"STOP_TIMEOUT": 1})
    with shop.serve() as site:
        address = address_of(site)
        answer = hold(shop, later, address, "/held/go")
        master_of(address).kill()
        with pytest.raises(TimeoutError):
            answer.result(2)
        release(shop, "go")
        assert answer.result() == (200, "go answered")
        assert ask(address)[0] == 200
        assert site.stop() in (0, 70)  # a busy machine may need more than the second of this exit
        await_that(lambda: site.members() == [], site.members)
