"""The leader of several sites, over real engines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engines import EngineServer, PostgresServer, RedisServer

from .conftest import URLS, Shop, await_that

pytestmark = pytest.mark.extended

LEASE = 3.0

APPS = ["django_wspbus", "django_wspbus.fleet.postgres", "shop"]


class Fleet:
    """The projects of three hosts, with one journal."""

    def __init__(self, root: Path, server: EngineServer, fleet: dict[str, Any], **settings: Any) -> None:
        self.server = server
        self.shops = []
        for name in ("one", "two", "three"):
            (root / name).mkdir()
            shop = Shop(root / name)
            shop.write("shop/urls.py", URLS)
            shop.write(
                "shop/journal.py",
                (root / name / "shop/journal.py")
                .read_text()
                .replace("Path(__file__).parent.parent", repr(root).replace("PosixPath", "Path")),
            )
            shop.leads()
            servers = {"default": shop.server}
            shop.configure(WSPBUS={"SERVERS": servers, "FLEET": fleet}, **settings)
            self.shops.append(shop)
        self.journal = Shop(root)


@pytest.fixture(params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    if request.param == "redis":
        with RedisServer() as redis:
            redis.start()
            options = {"url": redis.url, "lease": LEASE}
            backend = "django_wspbus.fleet.redis.RedisFleet"
            yield Fleet(tmp_path, redis, {"NAME": "shop", "BACKEND": backend, "OPTIONS": options})
        return
    with PostgresServer() as postgres:
        postgres.start()
        backend = "django_wspbus.fleet.postgres.PostgresFleet"
        settings = {"NAME": "shop", "BACKEND": backend, "OPTIONS": {"lease": LEASE}}
        made = Fleet(
            tmp_path, postgres, settings, DATABASES={"default": postgres.settings}, INSTALLED_APPS=APPS
        )
        migrated = made.shops[0].run("migrate")
        assert migrated.returncode == 0, migrated.stderr
        yield made


def site_of(pid: int) -> int:
    return psutil.Process(pid).ppid()


def test_another_site_leads_after_an_exit_a_kill_and_a_stop(fleet: Fleet) -> None:
    one, two, three = fleet.shops
    journal = fleet.journal
    with one.serve("-v2") as first:
        (leader,) = journal.expect_leaders(1)
        assert site_of(leader) == first.pid
        with two.serve("-v2") as second, three.serve("-v2") as third:
            second.wait_until_started()
            third.wait_until_started()
            assert first.stop() == 0
            _, leader = journal.expect_leaders(2)
            sites = {second.pid: second, third.pid: third}
            killed = sites.pop(site_of(leader))
            os.kill(killed.pid, signal.SIGKILL)
            _, _, leader = journal.expect_leaders(3)
            (left,) = sites.values()
            assert site_of(leader) == left.pid
            killed.wait_for_members()
            assert left.stop() == 0
    tokens = journal.tokens()
    assert tokens == sorted(set(tokens))


def test_a_stopped_leader_process_is_followed_and_does_not_lead_when_it_continues(fleet: Fleet) -> None:
    one, two, _ = fleet.shops
    journal = fleet.journal
    with one.serve("-v2"):
        (stopped,) = journal.expect_leaders(1)
        with two.serve("-v2") as second:
            second.wait_until_started()
            os.kill(stopped, signal.SIGSTOP)
            _, leader = journal.expect_leaders(2)
            assert site_of(leader) == second.pid
            os.kill(stopped, signal.SIGCONT)
            await_that(lambda: journal.has_stopped(stopped))
            assert second.stop() == 0
    assert journal.of_leaders()[0].pid == stopped


def test_while_the_engine_is_away_no_process_leads_and_one_does_after_its_return(fleet: Fleet) -> None:
    one, two, _ = fleet.shops
    journal = fleet.journal
    with one.serve("-v2") as first, two.serve("-v2") as second:
        second.wait_until_started()
        (leader,) = journal.expect_leaders(1)
        fleet.server.kill()
        assert [note.pid for note in journal.expect_note("leads no more")] == [leader]
        fleet.server.start()
        journal.expect_leaders(2)
        before, after = journal.tokens()
        assert before < after
        assert first.stop() == 0
        assert second.stop() == 0


def test_an_engine_that_takes_too_long_costs_the_leadership_and_no_process(fleet: Fleet) -> None:
    one, _, _ = fleet.shops
    journal = fleet.journal
    with one.serve("-v2") as first:
        (leader,) = journal.expect_leaders(1)
        fleet.server.freeze()
        journal.expect_note("leads no more")
        fleet.server.thaw()
        again = journal.expect_leaders(2)
        assert again == [leader, leader]
        assert first.stop() == 0


@pytest.mark.parametrize("fleet", ["postgres"], indirect=True)
def test_a_fence_commits_only_while_its_process_leads(fleet: Fleet) -> None:
    one, _, _ = fleet.shops
    journal = fleet.journal
    one.leads(
        """
from django.db import connection


@bus.subscribe("start", priority=60, role="leader")
def fenced():
    with bus.leader.fence() as token, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS effect (token bigint)")
        cursor.execute("INSERT INTO effect VALUES (%s)", [token])
    note(f"fenced {token == bus.leader.token}")
"""
    )
    with one.serve("-v2") as first:
        journal.expect_note("fenced True")
        assert first.stop() == 0
