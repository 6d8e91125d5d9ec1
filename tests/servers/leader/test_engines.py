"""The leader of one site, over real engines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engines import PostgresServer, RedisServer

from .conftest import Shop

pytestmark = pytest.mark.extended

FENCED = """
from django.db import connection


@bus.subscribe("start", priority=60, role="leader")
def fenced():
    with bus.leader.fence() as token, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS effect (token bigint)")
        cursor.execute("INSERT INTO effect VALUES (%s)", [token])
    note(f"fenced {token == bus.leader.token}")
"""


def join(shop: Shop, backend: str, options: dict[str, Any], **settings: Any) -> None:
    """Let the site of a project be a fleet."""
    fleet = {"NAME": "shop", "BACKEND": f"django_wspbus.fleet.{backend}", "OPTIONS": options}
    shop.configure(WSPBUS={"SERVERS": {"default": shop.server}, "FLEET": fleet}, **settings)


def test_an_engine_that_takes_too_long_costs_the_leadership_and_no_process(shop: Shop) -> None:
    with RedisServer() as redis:
        redis.start()
        join(shop, "redis.RedisFleet", {"url": redis.url, "lease": 2})
        with shop.serve("-v2") as site:
            (leader,) = shop.expect_leaders(1)
            redis.freeze()
            shop.expect_note("leads no more")
            redis.thaw()
            assert shop.expect_leaders(2) == [leader, leader]
            assert site.stop() == 0
        assert redis.call("HGET", "wspbus:{shop}:lease:leader", "holder") == ""  # released for another site


def test_a_fence_commits_only_while_its_process_leads(shop: Shop) -> None:
    with PostgresServer() as postgres:
        postgres.start()
        apps = ["django_wspbus", "django_wspbus.fleet.postgres", "shop"]
        databases = {"default": postgres.settings}
        join(shop, "postgres.PostgresFleet", {"lease": 1}, DATABASES=databases, INSTALLED_APPS=apps)
        shop.leads(FENCED)
        migrated = shop.run("migrate")
        assert migrated.returncode == 0, migrated.stderr
        with shop.serve("-v2") as site:
            shop.expect_note("fenced True")
            assert site.stop() == 0
