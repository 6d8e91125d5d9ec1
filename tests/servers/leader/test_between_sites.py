"""The leader of several sites, over real engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import EngineServer, PostgresServer, RedisServer

from .conftest import URLS, Shop

pytestmark = pytest.mark.extended

LEASE = 3.0

APPS = ["django_wspbus", "django_wspbus.fleet.postgres", "shop"]


class Fleet:
    """The projects of two hosts, with one journal."""

    def __init__(self, root: Path, server: EngineServer, fleet: dict[str, Any], **settings: Any) -> None:
        self.server = server
        self.shops = []
        for name in ("one", "two"):
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


def test_while_the_engine_is_away_no_process_leads_and_one_does_after_its_return(fleet: Fleet) -> None:
    one, two = fleet.shops
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
    one, _ = fleet.shops
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
    one, _ = fleet.shops
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
