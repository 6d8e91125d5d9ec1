"""The standby worker of gunicorn, the number of its workers, and the orders that a worker obeys."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from django_wspbus.children.orders import EXIT
from django_wspbus.process.record import Stage
from django_wspbus.process.worker_orders import Publish
from tests.projects import Project

from ..clients import ask
from ..conftest import GUNICORN, Later, configure, hold, release
from .site import OwnSite


def serves(shop: Project, workers: int = 1, **options: object) -> None:
    server = {"BACKEND": GUNICORN, "OPTIONS": {"workers": workers, **options}, "RECYCLE": {"REQUESTS": 1000}}
    configure(shop, {"shop": server})


def is_proven(site: OwnSite, pid: int) -> bool:
    """Send a request, and return whether a worker has answered one by now."""
    assert ask(site.address)[0] == 200
    return bool(site.record(pid).stage == Stage.PROVEN)


def test_a_standby_worker_boots_when_it_is_ordered_to_and_not_before(shop: Project) -> None:
    serves(shop, threads=2)
    with OwnSite(shop) as site:
        first, second = site.expect(2, Stage.STANDBY)
        assert shop.events() == []
        site.await_that(lambda: site.child.progress.standby == {first, second})
        assert site.child.progress.expected == 1

        site.begin(second)
        site.child.serve()

        assert site.expect(1, Stage.SERVING) == [second]
        assert ask(site.address)[1] == f"{second} STARTED"
        assert site.record(second).threads == 2
        assert site.at(Stage.STANDBY) == [first]
        assert [note.pid for note in shop.notes("worker start")] == [second]


def test_a_crash_is_answered_by_the_standby_worker_and_another_one_is_forked(shop: Project) -> None:
    serves(shop)
    with OwnSite(shop) as site:
        (victim,) = site.serve()
        (successor,) = site.expect(1, Stage.STANDBY)
        os.kill(victim, signal.SIGKILL)
        site.await_that(lambda: victim not in site.child.workers)
        site.begin(successor)

        assert site.expect(1, Stage.SERVING) == [successor]
        assert successor not in site.expect(1, Stage.STANDBY)


def test_exactly_the_worker_that_is_to_retire_retires_with_what_it_answers(
    shop: Project, later: Later
) -> None:
    serves(shop, workers=2, threads=2)
    with OwnSite(shop) as site:
        site.serve(2)
        answer = hold(shop, later, site.address, "/held/release")
        (victim,) = [note.pid for note in shop.notes("release waits")]
        (other,) = {*site.at(Stage.SERVING, Stage.PROVEN)} - {victim}
        (successor,) = site.expect(1, Stage.STANDBY)
        site.record(victim).retiring = 1
        os.kill(site.child.pid, signal.SIGCHLD)
        site.begin(successor)
        site.await_that(lambda: site.record(successor).stage >= Stage.SERVING)
        now = time.monotonic()
        site.retire(victim, now + 60, now + 61)
        site.await_that(lambda: len(site.child.workers) == 4)  # the two, the victim, and the next one

        site.await_that(lambda: victim not in {int(ask(site.address)[1].split()[0]) for _ in range(8)})
        release(shop, "release")
        assert answer.result()[1] == "release answered"
        site.await_that(lambda: victim not in site.child.workers)
        assert shop.notes("worker stop")[0].pid == victim
        assert sorted(site.expect(2, Stage.SERVING, Stage.PROVEN)) == sorted([other, successor])
        assert len(site.expect(1, Stage.STANDBY)) == 1
        assert site.child.progress.failed_stops == []


def test_a_later_order_to_retire_may_shorten_the_time_and_names_what_is_cut_off(
    shop: Project, later: Later
) -> None:
    serves(shop, threads=2)
    with OwnSite(shop) as site:
        (victim,) = site.serve()
        answer = hold(shop, later, site.address, "/held/never")
        now = time.monotonic()
        site.retire(victim, now + 600, now + 601)
        site.await_that(lambda: site.record(victim).connections == 1)
        now = time.monotonic()
        site.retire(victim, now, now + 5)

        site.await_that(lambda: victim not in site.child.workers)
        assert site.child.progress.cut_off == {victim: "GET /held/never"}
        assert [note.pid for note in shop.notes("worker stop")] == [victim]
        assert answer.exception() is not None


def test_an_order_to_exit_shortens_the_time_of_a_worker_that_retires(shop: Project, later: Later) -> None:
    serves(shop, threads=2)
    with OwnSite(shop) as site:
        (victim,) = site.serve()
        answer = hold(shop, later, site.address, "/held/never")
        now = time.monotonic()
        site.retire(victim, now + 600, now + 601)
        for seconds in (500, 0.1):
            site.child.links.order(
                b"e%.3f,%.3f;" % (time.monotonic() + seconds, time.monotonic() + seconds + 5)
            )
        site.await_that(lambda: victim not in site.child.workers)
        assert site.child.progress.cut_off == {victim: "GET /held/never"}
        assert answer.exception() is not None


@pytest.mark.parametrize("order", ["sigterm", "exit"])
def test_a_standby_worker_that_has_to_exit_runs_no_listener(shop: Project, order: str) -> None:
    serves(shop)
    with OwnSite(shop) as site:
        first, second = site.expect(2, Stage.STANDBY)
        if order == "sigterm":
            os.kill(first, signal.SIGTERM)
            site.await_that(lambda: first not in site.child.workers)
            assert second in site.expect(2, Stage.STANDBY)
        else:
            now = time.monotonic()
            site.child.links.order(EXIT % (now + 5, now + 6))
            os.kill(site.child.pid, signal.SIGTERM)
            assert site.child.process.wait() == 0
        assert shop.events() == []
        assert site.child.progress.failure is None


def test_gunicorns_own_signals_do_not_change_the_number_of_workers(shop: Project) -> None:
    serves(shop, workers=2)
    with OwnSite(shop) as site:
        served = site.serve(2)
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP):
            os.kill(site.child.pid, number)
        site.await_that(lambda: "SIGTTIN has no effect" in site.text and "SIGTTOU has no effect" in site.text)
        assert site.at(Stage.SERVING) == served
        assert len(site.child.workers) == 3


def test_the_site_sets_the_number_of_workers(shop: Project) -> None:
    serves(shop)
    with OwnSite(shop) as site:
        (first,) = site.serve()
        site.record(site.child.pid).wanted = 3
        os.kill(site.child.pid, signal.SIGCHLD)
        for pid in site.expect(3, Stage.STANDBY)[:2]:
            site.begin(pid)
        site.expect(3, Stage.SERVING)
        site.record(site.child.pid).wanted = 1
        os.kill(site.child.pid, signal.SIGCHLD)
        now = time.monotonic()
        for pid in set(site.at(Stage.SERVING)) - {first}:
            site.record(pid).retiring = 1
            site.retire(pid, now + 5, now + 6)
        site.await_that(lambda: len(site.child.workers) == 2)
        assert site.at(Stage.SERVING) == [first]


def test_a_worker_answers_what_is_published_to_it_although_another_listener_hangs(shop: Project) -> None:
    shop.listeners(
        "import threading\n\nbus.subscribe('shop.add', lambda one, two: one + two)\n"
        "bus.subscribe('shop.hang', threading.Event().wait)\nbus.subscribe('shop.odd', object)\n"
    )
    serves(shop)
    with OwnSite(shop) as site:
        (pid,) = site.serve()
        replies = site.child.replies
        for number, (channel, *args) in enumerate(
            [("shop.hang",), ("shop.add", 1, 2), ("shop.odd",), ("shop.add", 1)]
        ):
            site.child.order_worker(pid, Publish(number, channel, args))
        site.await_that(lambda: {1, 2, 3} <= set(replies))
        assert (replies[1].results, replies[1].error, replies[1].pid) == ([3], None, pid)
        assert replies[2].error.startswith("The result of shop.odd cannot be sent to another process: ")
        assert "TypeError" in replies[3].error


@pytest.mark.extended
def test_random_crashes_are_replaced_at_once_and_no_worker_is_lost(shop: Project) -> None:
    serves(shop, workers=3, threads=2)
    chance = random.Random(5)
    with OwnSite(shop) as site:
        site.serve(3)
        for _ in range(8):
            for victim in chance.sample(site.child.workers, chance.randint(1, 2)):
                os.kill(victim, signal.SIGKILL)
                site.await_that(lambda victim=victim: victim not in site.child.workers)
            site.await_that(lambda: site.begin_missing(3))
            site.expect(1, Stage.STANDBY)
            for pid in site.at(Stage.SERVING, Stage.PROVEN):
                site.await_that(lambda pid=pid: is_proven(site, pid))
