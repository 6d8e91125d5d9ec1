"""The leader process of a site that is alone."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.controlled import result, site_of
from tests.processes import RunningSite, fetch, fetch_json

from .conftest import await_that

LOCAL = {"NAME": "shop", "BACKEND": "django_wspbus.fleet.local.LocalEngine", "OPTIONS": {"lease": 2}}

RELOADED = r"Reloaded after"


def reload(site: RunningSite, count: int = 1) -> None:
    site.send(signal.SIGUSR1)
    site.wait_for_line(RELOADED, count=count)


def test_one_process_leads_beside_the_workers(shop):
    with shop.serve("-v2") as site:
        (leader,) = shop.expect_leaders(1)
        assert psutil.Process(leader).ppid() == site.pid
        status = fetch_json(site.wait_until_started()["default"] + "/status")["leader"]
        assert (status["pid"], status["state"], status["token"]) == (leader, "leads", shop.tokens()[0])
        assert site.stop() == 0
    assert [note.pid for note in shop.notes("leads no more")] == [leader]


def test_a_site_without_work_for_a_leader_has_no_such_process(shop):
    shop.listeners("")
    with shop.serve("-v2") as site:
        status = fetch_json(site.wait_until_started()["default"] + "/status")
        assert status["leader"] is None
        assert len(psutil.Process(site.pid).children(recursive=True)) == 2  # gunicorn's master and its worker
        assert site.stop() == 0


def test_a_reload_hands_over_to_the_new_code_with_a_larger_token(shop):
    with shop.serve("-v2") as site:
        (first,) = shop.expect_leaders(1)
        shop.leads("# changed")
        reload(site)
        _, second = shop.expect_leaders(2)
        assert site.stop() == 0
    assert shop.pids_of("leads") == [first, first, second, second]
    assert second != first
    before, after = shop.tokens()
    assert before < after


@pytest.mark.extended
def test_a_reload_whose_code_does_not_boot_leaves_the_leader(shop):
    with shop.serve("-v2") as site:
        shop.expect_leaders(1)
        shop.leads("raise RuntimeError('broken')")
        site.send(signal.SIGUSR1)
        site.wait_for_line("The reload failed")
        assert site.stop() == 0
    assert len(shop.tokens()) == 1


@pytest.mark.extended
def test_a_reload_starts_the_leader_process_that_the_new_code_needs_and_ends_it_with_the_need(shop):
    shop.listeners("")
    with shop.serve("-v2") as site:
        site.wait_until_started()
        shop.leads()
        reload(site)
        (leader,) = shop.expect_leaders(1)
        shop.listeners("")
        reload(site, count=2)
        shop.expect_note("leads no more")
        psutil.Process(leader).wait(30)
        assert site.stop() == 0


@pytest.mark.extended
def test_a_killed_leader_process_is_followed_at_once_and_harms_no_request(shop):
    with shop.serve("-v2") as site:
        (first,) = shop.expect_leaders(1)
        os.kill(first, signal.SIGKILL)
        _, second = shop.expect_leaders(2)
        assert second != first
        assert fetch(site.wait_until_started()["default"])
        assert site.stop() == 0


@pytest.mark.extended
def test_the_lease_and_the_token_survive_a_restart_of_the_site(shop):
    with shop.serve("-v2") as site:
        shop.expect_leaders(1)
        site.send(signal.SIGUSR2)
        shop.expect_leaders(2)
        site.wait_for_line("Restarted in|Bus STARTED", count=2)
        assert site.stop() == 0
    before, after = shop.tokens()
    assert before < after


@pytest.mark.extended
def test_a_leader_that_is_stopped_for_longer_than_its_lease_leads_no_more_when_it_continues(shop):
    shop.serves(shop.server, FLEET=LOCAL)
    with shop.serve("-v2") as site:
        (first,) = shop.expect_leaders(1)
        os.kill(first, signal.SIGSTOP)
        await_that(lambda: psutil.Process(first).status() == psutil.STATUS_STOPPED)
        status = result(site_of(site), "status")
        assert (status["well"], status["reason"]) == (
            False,
            f"the leader process {first} is stopped (SIGSTOP)",
        )
        reload(site)  # another candidate
        _, second = shop.expect_leaders(2)
        os.kill(first, signal.SIGCONT)
        await_that(lambda: shop.has_stopped(first))
        site.stop()
    assert [note.pid for note in shop.notes("leads no more")][-1] == second


@pytest.mark.extended
def test_a_start_listener_that_fails_costs_the_process_and_another_one_tries(shop):
    shop.leads(
        "\n@bus.subscribe('start', role='leader')\ndef fail():\n    raise ValueError('no scheduler')\n"
    )
    with shop.serve("-v2") as site:
        shop.expect_leaders(2)
        assert fetch(site.wait_until_started()["default"])
        assert any("ValueError: no scheduler" in line for line in site.lines)
        assert site.stop() == 0


@pytest.mark.extended
def test_a_worker_has_no_token(shop):
    shop.leads(
        """
@bus.subscribe("start")
def in_a_worker():
    try:
        bus.leader.token
    except NotLeader as error:
        note(str(error))
"""
    )
    with shop.serve("-v2") as site:
        shop.expect_leaders(1)
        assert site.stop() == 0
    assert any("does not lead" in event for event in shop.events())


@pytest.mark.extended
def test_what_runs_at_intervals_in_the_leader_moves_with_a_reload(shop):
    shop.leads("every(0.1, role='leader')(lambda: note('call'))")
    with shop.serve("-v2") as site:
        (first,) = shop.expect_leaders(1)
        shop.expect_note("call", 2)
        reload(site)
        _, second = shop.expect_leaders(2)
        await_that(lambda: any(note.pid == second for note in shop.notes("call")))
        assert site.stop() == 0
    calls = [note.pid for note in shop.notes("call")]
    assert calls == [first] * calls.count(first) + [second] * calls.count(second)


@pytest.mark.extended
def test_a_restart_starts_the_leader_process_that_the_new_code_needs_and_ends_it_with_the_need(shop):
    shop.listeners("")
    with shop.serve("-v2") as site:
        site.wait_until_started()
        shop.leads()
        site.send(signal.SIGUSR2)
        (leader,) = shop.expect_leaders(1)
        site.wait_for_line("Bus STARTED", count=2)
        shop.listeners("")
        site.send(signal.SIGUSR2)
        shop.expect_note("leads no more")
        await_that(lambda: not psutil.pid_exists(leader))
        site.wait_for_line("Bus STARTED", count=3)
        assert site.stop() == 0


@pytest.mark.extended
def test_the_leader_process_answers_and_hears_like_any_other_process(shop):
    shop.leads("bus.subscribe('shop.pid', lambda: note('asked'))")
    with shop.serve("-v2") as site:
        (leader,) = shop.expect_leaders(1)
        replies = fetch_json(site.wait_until_started()["default"] + "/ask")
        assert [leader, ["leader"]] in replies
        assert sorted(roles for _, (roles,) in replies) == ["leader", "site", "worker"]
        assert leader in [note.pid for note in shop.notes("asked")]
        assert site.stop() == 0
