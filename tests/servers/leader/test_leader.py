"""The leader process of a site that is alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.controlled import result, site_of
from tests.fleet.site_code import OFTEN
from tests.processes import RunningSite, fetch, fetch_json
from tests.servers.load import await_that

from .conftest import Shop, act

LOCAL = {"NAME": "shop", "BACKEND": "django_wspbus.fleet.local.LocalEngine", "OPTIONS": {"lease": 2}}

ENDLESS = {**LOCAL, "OPTIONS": {"lease": 3600}}
"""With this lease, another process leads only if the one before has released it, or its site has."""

WORK = f"""
INTERVAL = 0.5
{OFTEN}
bus.subscribe(JOBS, Job(lambda: note("job"), Often("* * * * *", "UTC"), name="often"), role="leader")
every(0.1, role="leader")(lambda: note("call"))
bus.subscribe("shop.pid", lambda: note("asked"))


@bus.subscribe("start")
def in_a_worker():
    try:
        bus.leader.token
    except NotLeader as error:
        note(str(error))
"""

Served = tuple[Shop, RunningSite]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A site without FLEET, at which tests only look. When it stops, its leader runs the stop listeners."""
    shop = Shop(tmp_path_factory.mktemp("alone"))
    shop.leads(WORK)
    with shop.serve("-v2") as site:
        site.wait_until_started()
        (leader,) = shop.expect_leaders(1)
        yield shop, site
        assert site.stop() == 0
    assert shop.pids_of("leads no more") == [leader]


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A site whose lease does not end. Each test leaves it with a process that leads."""
    shop = Shop(tmp_path_factory.mktemp("lasting"))
    shop.serves(shop.server, FLEET=ENDLESS)
    with shop.serve("-v2") as site:
        site.wait_until_started()
        shop.expect_leaders(1)
        yield shop, site
        assert site.stop() == 0
    tokens = shop.tokens()
    assert tokens == sorted(set(tokens))


def leader_of(site: RunningSite) -> dict[str, Any]:
    """Return the leader process in the status of a site."""
    found: dict[str, Any] = result(site_of(site), "status")["leader"]
    return found


def test_one_process_leads_beside_the_workers_and_runs_what_is_for_the_leader(alone: Served) -> None:
    shop, site = alone
    (leader,) = shop.expect_leaders(1)
    assert psutil.Process(leader).ppid() == site.pid
    status = fetch_json(site.wait_until_started()["default"] + "/status")["leader"]
    assert (status["pid"], status["state"], status["token"]) == (leader, "leads", shop.tokens()[0])
    for event in ("call", "job"):
        assert {note.pid for note in shop.expect_note(event, 2)} == {leader}


@pytest.mark.extended
def test_a_worker_has_no_token(alone: Served) -> None:
    shop, _ = alone
    assert any("does not lead" in event for event in shop.events())


@pytest.mark.extended
def test_the_leader_process_answers_and_hears_like_any_other_process(alone: Served) -> None:
    shop, site = alone
    (leader,) = shop.expect_leaders(1)
    replies = fetch_json(site.wait_until_started()["default"] + "/ask")
    assert [leader, ["leader"]] in replies
    assert sorted(roles for _, (roles,) in replies) == ["leader", "site", "worker"]
    assert leader in [note.pid for note in shop.notes("asked")]


def test_a_site_without_work_for_a_leader_has_no_such_process(shop: Shop) -> None:
    shop.listeners("")
    with shop.serve("-v2") as site:
        status = fetch_json(site.wait_until_started()["default"] + "/status")
        assert status["leader"] is None
        assert len(psutil.Process(site.pid).children(recursive=True)) == 2  # gunicorn's master and its worker
        assert site.stop() == 0


def test_a_reload_hands_over_to_the_new_code(lasting: Served) -> None:
    shop, site = lasting
    shop.leads("every(0.1, role='leader')(lambda: note('call'))")
    act(site, "graceful")
    first = shop.expect_note("call")[0].pid
    act(site, "graceful")
    second = shop.expect_successor(first)
    shop.expect_note("call", pid=second)
    pids = [note.pid for note in shop.notes() if note.pid in (first, second)]
    assert pids == [first] * pids.count(first) + [second] * pids.count(second)
    assert first in shop.pids_of("leads no more")


@pytest.mark.extended
def test_a_reload_whose_code_does_not_boot_leaves_the_leader(lasting: Served) -> None:
    shop, site = lasting
    leader = shop.of_leaders()[-1].pid
    shop.leads("raise RuntimeError('broken')")
    site.send(signal.SIGUSR1)
    site.wait_for_line("The reload failed")
    shop.leads()
    status = leader_of(site)
    assert (status["pid"], status["state"]) == (leader, "leads")


@pytest.mark.extended
def test_a_killed_leader_process_is_followed_at_once_and_harms_no_request(lasting: Served) -> None:
    shop, site = lasting
    leader = shop.of_leaders()[-1].pid
    os.kill(leader, signal.SIGKILL)
    shop.expect_successor(leader)
    assert fetch(site.wait_until_started()["default"])


@pytest.mark.extended
def test_the_lease_and_the_token_survive_a_restart_of_the_site(lasting: Served) -> None:
    shop, site = lasting
    leader = shop.of_leaders()[-1].pid
    act(site, "restart")
    shop.expect_successor(leader)
    assert leader in shop.pids_of("leads no more")


@pytest.mark.extended
def test_a_reload_or_restart_starts_the_leader_process_that_the_code_needs_and_ends_it_with_the_need(
    shop: Shop,
) -> None:
    shop.listeners("")
    with shop.serve("-v2") as site:
        site.wait_until_started()
        for number, action in enumerate(("graceful", "restart"), 1):
            shop.leads()
            act(site, action)
            leader = shop.expect_leaders(number)[-1]
            shop.listeners("")
            act(site, action)
            shop.expect_note("leads no more", number)
            await_that(lambda leader=leader: not psutil.pid_exists(leader))
        assert site.stop() == 0


@pytest.mark.extended
def test_a_leader_that_is_stopped_for_longer_than_its_lease_leads_no_more_when_it_continues(
    shop: Shop,
) -> None:
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
        act(site, "graceful")  # another candidate
        _, second = shop.expect_leaders(2)
        os.kill(first, signal.SIGCONT)
        await_that(lambda: shop.has_stopped(first))
        site.stop()
    assert shop.pids_of("leads no more")[-1] == second


@pytest.mark.extended
def test_a_start_listener_that_fails_costs_the_process_and_another_one_tries(shop: Shop) -> None:
    shop.leads(
        "\n@bus.subscribe('start', role='leader')\ndef fail():\n    raise ValueError('no scheduler')\n"
    )
    with shop.serve("-v2") as site:
        shop.expect_leaders(2)
        assert fetch(site.wait_until_started()["default"])
        assert any("ValueError: no scheduler" in line for line in site.lines)
        assert site.stop() == 0
