"""``wspbus status --fleet`` on several sites."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.control.protocol import Result

from ..command.conftest import run
from ..controlled import order, result, site_of
from ..engines import RedisServer
from ..processes import RunningSite, fetch, free_port
from ..servers.load import await_that
from .hosts import Host, fleet_on

pytestmark = pytest.mark.extended


def look(site: RunningSite) -> dict[str, Any]:
    found: dict[str, Any] = result(site_of(site), "status", fleet=True)["fleet"]
    return found


def member_of(fleet: dict[str, Any], site: RunningSite) -> dict[str, Any]:
    return next((each for each in fleet["members"] if each["pid"] == site.pid), {})


def test_the_members_are_listed_with_their_versions_and_with_what_is_wrong(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    probes = f"127.0.0.1:{free_port()}"
    one = Host(tmp_path / "one", fleet_on(own_redis) | {"VERSION": "v1"}, HEALTH=probes)
    two = Host(tmp_path / "two", fleet_on(own_redis))
    with one.serve() as first, two.serve() as second:
        first.wait_until_started()
        second.wait_until_started()
        await_that(lambda: len(look(first)["members"]) == 2)
        await_that(lambda: len(member_of(look(first), second)["processes"]) == 2)
        fleet = look(first)
        assert (fleet["well"], fleet["leader"], fleet["deploy"]) == (True, None, None)
        assert member_of(fleet, second)["version"] == two.path
        assert member_of(fleet, first)["version"] == "v1"

        # A reload shows the version that the new workers have loaded, although the site keeps its code.
        before = two.path
        assert two.release() != before
        one.wspbus["FLEET"]["VERSION"] = "v2"
        one.configure()
        for site in (first, second):
            _, outcome = order(site_of(site), "graceful")
            assert isinstance(outcome, Result), outcome
        await_that(lambda: member_of(look(first), second)["version"] == two.path)
        await_that(lambda: member_of(look(second), first)["version"] == "v2")
        ran = run("status", "--fleet", "--pid", str(second.pid))
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.startswith("Well: 2 sites\nFleet 'shop': RedisFleet up, for ")
        assert f"\nThe members run 2 versions: '{two.path}' on " in ran.stdout or "'v2' on" in ran.stdout
        assert "1 site, 1 worker" in ran.stdout

        # A site that signs with another key, and one that is killed.
        other = Host(tmp_path / "other", fleet_on(own_redis))
        other.configure(SECRET_KEY="of nobody else")
        with other.serve() as stranger:
            stranger.wait_until_started()
            await_that(lambda: member_of(look(first), stranger).get("accepted") is False)
            fleet = look(first)
            assert not fleet["well"]
            assert member_of(fleet, stranger)["reason"] == "signs with another SECRET_KEY"
            await_that(lambda: look(first)["rejected"].get("key"))
            stranger.stop()
        await_that(lambda: look(first)["well"])
        second.send(signal.SIGKILL)
        await_that(lambda: member_of(look(first), second).get("missing"))
        ran = run("status", "--fleet", "--pid", str(first.pid))
        assert ran.returncode == 1
        assert " has given no sign of life for " in ran.stdout.splitlines()[0]
        with two.serve() as again:
            again.wait_until_started()
            await_that(lambda: member_of(look(first), again))
            await_that(lambda: look(first)["well"])
            assert member_of(look(first), second) == {}

        # An engine that is away shows here, and not in the probes.
        own_redis.kill()
        await_that(lambda: not look(first)["up"])
        ran = run("status", "--fleet", "--pid", str(first.pid))
        assert ran.returncode == 1
        assert ran.stdout.startswith("Not well: the engine is unavailable: Redis: ")
        assert "ready" in fetch(f"http://{probes}/readyz")
