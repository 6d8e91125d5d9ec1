"""Faults in the middle of a replacement: killed and stopped workers, reloads, other numbers of workers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from http.client import HTTPException
from typing import Any

import psutil
import pytest

from tests.processes import RunningSite

from ..controlled import result, site_of
from .clients import ask
from .conftest import Later, address_of, hold, master_of, release
from .load import Load, Shop, await_that, status_of
from .retirement import await_end, hanging, pid_of, serve, workers_of

pytestmark = pytest.mark.extended


def await_workers(address: str, count: int) -> None:
    """Wait until a number of workers is left, besides one that stands by."""
    await_that(lambda: len(workers_of(address)) == count, lambda: workers_of(address))


def await_answers(address: str, count: int, *, other: int = 0) -> None:
    """Wait until there is a number of workers, each of which has answered by now, besides another one."""
    seen: set[int] = set()

    def all_have() -> bool:
        seen.add(pid_of(address))
        workers = set(workers_of(address)) - {other}
        return len(workers) == count and workers <= seen

    await_that(all_have, lambda: (seen, workers_of(address)))


def retires(site: RunningSite, pid: int) -> bool:
    return any(f"Worker {pid} of the server 'default' retires" in line for line in site.lines)


@pytest.fixture
def retiring(shop: Shop, later: Later) -> Any:
    """Start a site with two workers, of which one retires, and finishes a request until ``release``."""

    def start(site: RunningSite) -> tuple[str, int, Any]:
        address = address_of(site)
        answer = hold(shop, later, address, "/held/go")
        old = next(note.pid for note in shop.expect_note("go waits"))
        # The kernel chooses which worker answers: the other one may take most requests, and retire before.
        await_that(lambda: ask(address)[0] == 200 and retires(site, old))
        return address, old, answer

    return start


def test_a_sibling_that_is_killed_while_another_worker_finishes_is_replaced_at_once(
    shop: Shop, retiring: Any
) -> None:
    serve(shop, workers=2, RECYCLE={"REQUESTS": 20})
    with shop.serve("-v2") as site:
        address, old, answer = retiring(site)
        await_answers(address, 2, other=old)
        sibling = (set(workers_of(address)) - {old}).pop()
        os.kill(sibling, signal.SIGKILL)
        await_that(lambda: sibling not in workers_of(address))
        await_answers(address, 2, other=old)
        assert not answer.done()  # it has not waited for the drain
        release(shop, "go")
        assert answer.result() == (200, "go answered")
        await_end(old)
        await_workers(address, 2)
        assert site.stop() == 0
        assert site.members() == []


def test_a_worker_that_is_killed_while_it_retires_leaves_the_others_serving(
    shop: Shop, retiring: Any
) -> None:
    serve(shop, workers=2, RECYCLE={"REQUESTS": 20})
    with shop.serve("-v2") as site:
        address, old, answer = retiring(site)
        os.kill(old, signal.SIGKILL)
        assert answer.exception() is not None
        site.wait_for_line(f"Worker {old} .*requests lost: GET /held/go")
        await_workers(address, 2)
        assert site.stop() == 0


def test_a_master_that_is_killed_in_the_middle_is_replaced_and_its_workers_finish(
    shop: Shop, retiring: Any
) -> None:
    serve(shop, workers=2, RECYCLE={"REQUESTS": 20})
    with shop.serve("-v2") as site:
        address, _, answer = retiring(site)
        master_of(address).kill()
        release(shop, "go")
        assert answer.result() == (200, "go answered")
        await_workers(address, 2)
        assert site.stop() == 0
        assert site.members() == []


def test_a_reload_while_a_worker_retires_replaces_all_and_lets_it_finish(shop: Shop, retiring: Any) -> None:
    serve(shop, workers=2, RECYCLE={"REQUESTS": 20})
    with shop.serve("-v2") as site:
        address, old, answer = retiring(site)
        site.send(signal.SIGUSR1)
        site.wait_for_line("Reloaded after")
        await_workers(address, 2)
        release(shop, "go")
        assert answer.result() == (200, "go answered")
        await_end(old)
        await_that(lambda: status_of(address)["servers"]["default"]["leaving"] == [])
        assert site.stop() == 0
        assert site.members() == []


def test_an_exit_while_a_worker_retires_takes_no_longer_than_stop_timeout(shop: Shop, retiring: Any) -> None:
    serve(shop, workers=2, RECYCLE={"REQUESTS": 20}, site={"STOP_TIMEOUT": 8})
    with shop.serve("-v2") as site:
        address, old, answer = retiring(site)
        await_answers(address, 2, other=old)
        assert site.stop() == 70
        assert answer.exception() is not None
        await_that(lambda: site.members() == [], site.members)
    assert f"GET /held/go (worker {old})" in site.output
    assert [note.pid for note in shop.expect_note("stopped", 3)].count(old) == 1


@pytest.mark.parametrize("workers", [1, 4])
def test_another_number_of_workers_while_one_retires_is_reached(
    shop: Shop, retiring: Any, workers: int
) -> None:
    serve(shop, workers=2, RECYCLE={"REQUESTS": 20})
    with shop.serve("-v2") as site:
        address, old, answer = retiring(site)
        assert result(site_of(site), "scale", server="default", workers=workers)["before"] == 2
        await_answers(address, workers, other=old)
        release(shop, "go")
        assert answer.result() == (200, "go answered")
        await_workers(address, workers)
        assert site.stop() == 0


def test_a_worker_in_c_code_that_keeps_the_gil_is_replaced_and_killed(shop: Shop, later: Later) -> None:
    serve(shop, workers=2, REQUEST_TIMEOUT=1)
    with shop.serve("-v2") as site:
        address = address_of(site)
        with hanging(shop, later, address, path="/gil/") as (old,):
            site.wait_for_line(f"is stuck in worker {old}: GET /gil/")
            await_end(old)
        await_workers(address, 2)
        assert site.stop() == 0
    assert " in keep_the_gil\n" in site.output


def test_a_worker_that_sigstop_has_stopped_is_replaced_and_killed(shop: Shop, later: Later) -> None:
    serve(shop, workers=2, REQUEST_TIMEOUT=1)
    with shop.serve("-v2") as site:
        address = address_of(site)
        answer = hold(shop, later, address, "/held/go")
        (old,) = (note.pid for note in shop.expect_note("go waits"))
        os.kill(old, signal.SIGSTOP)
        site.wait_for_line(f"is stuck in worker {old}: GET /held/go")
        await_end(old)
        assert answer.exception() is not None
        await_workers(address, 2)
        assert site.stop() == 0
    assert "SIGSTOP" in site.output


def test_successors_that_get_stuck_at_once_are_replaced_ever_more_seldom_and_the_log_says_so_once(
    shop: Shop, later: Later
) -> None:
    serve(shop, threads=1, REQUEST_TIMEOUT=0.5)
    with shop.serve("-v2") as site:
        address = address_of(site)
        answers = [later(ask, address, "/hang/") for _ in range(5)]
        site.wait_for_line("The workers of the server 'default' get stuck as soon as they serve.")
        for answer in answers:
            assert answer.exception() is not None
        assert ask(address)[0] == 200
        assert site.stop() == 0
    assert site.output.count("get stuck as soon as they serve") == 1


def test_a_worker_above_its_limit_right_after_its_boot_starts_no_loop(shop: Shop) -> None:
    serve(shop, RECYCLE={"MEMORY": "1MB"})
    with shop.serve("-v2") as site:
        address = address_of(site)
        pid = pid_of(address)
        site.wait_for_line(
            rf'Worker {pid} .* private memory \d+ seconds after its boot, and RECYCLE\["MEMORY"\] is 1.0 MB'
        )
        time.sleep(7)  # longer than the interval of measurements
        assert pid_of(address) == pid
        assert site.stop() == 0
    assert "retires" not in site.output
    assert site.output.count("Raise the limit.") == 1


def test_random_kills_during_many_replacements_leave_the_wanted_workers_and_no_other_process(
    shop: Shop,
) -> None:
    serve(shop, workers=3, RECYCLE={"REQUESTS": 30}, REQUEST_TIMEOUT=30)
    chance = random.Random(11)
    with shop.serve("-v2") as site:
        address = address_of(site)
        with Load(address, slow=0) as load:
            for _ in range(8):
                load.wait_for(lambda answer: True, len(load.answers) + 40)
                kill_one(address, chance)
            load.stop()
        assert len(load.failures) <= 8 * 4  # those that a killed worker was answering
        await_answers(address, 3)
        assert site.stop() == 0
        assert site.members() == []


def kill_one(address: str, chance: random.Random) -> None:
    """Kill a worker; another one if that has just ended, as it retired."""
    while True:
        workers = [each.pid for each in master_of_any(address).children()]
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
            return


def master_of_any(address: str) -> psutil.Process:
    """Return the master, by any worker that answers while others are killed."""
    for _ in range(100):
        with contextlib.suppress(OSError, HTTPException, psutil.NoSuchProcess, AssertionError):
            return master_of(address)
    raise AssertionError("no worker answers")
