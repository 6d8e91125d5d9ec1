"""Workers that are replaced one by one: stuck ones, and those that exceed a limit of RECYCLE."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.processes import DEADLINE

from ..controlled import result, site_of
from .clients import ask
from .conftest import Later, address_of, hold, release
from .load import Load, Shop, await_that
from .retirement import await_end, hanging, pid_of, serve, workers_of


def test_two_requests_that_hang_harm_no_third_and_their_worker_is_replaced_and_killed(
    shop: Shop, later: Later
) -> None:
    serve(shop, threads=2, REQUEST_TIMEOUT=2)  # in which both requests have to come
    with shop.serve("-v2") as site:
        address = address_of(site)
        with hanging(shop, later, address, 2) as (old, _):
            assert ask(address)[0] == 200  # once REQUEST_TIMEOUT has passed, from either worker
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


@pytest.mark.extended
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
            load.wait_for_all()
            load.wait_for(lambda answer: answer.pid != old, 3)
            answers = load.finish()
        release(shop, "go")

        assert stream.result() == (200, "begun, ended")
        assert max(answer.ended - answer.began for answer in answers) < DEADLINE
        await_end(old)
        assert site.stop() == 0
        assert site.members() == []


@pytest.mark.extended
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
