"""The report of ``status --fleet``."""

from __future__ import annotations

from typing import Any

from django_wspbus.fleet.base import Member, MemberProcess
from django_wspbus.fleet.roster import Roster

from .test_status import WELL, text_of


def member(host: str, pid: int, **values: Any) -> dict[str, Any]:
    processes = [{"pid": pid, "roles": ["site"]}, {"pid": pid + 1, "roles": ["worker"]}]
    usual = {"state": "STARTED", "processes": processes, "key": "0a1b2c3d", "accepted": True, "seen": 1.0}
    return {
        "host": host,
        "pid": pid,
        "version": "/srv/shop/releases/42",
        "site": True,
        "missing": False,
        **usual,
        **values,
    }


FLEET = {"name": "shop", "engine": "django_wspbus.fleet.redis.RedisFleet", "up": True, "since": 60.0}


def report(*members: dict[str, Any], **values: Any) -> list[str]:
    return text_of({**WELL, "fleet": {**FLEET, "members": list(members), **values}})


def test_a_fleet_that_is_well_has_a_row_for_each_member() -> None:
    foreign = member("web3", 9, site=False, processes=[{"pid": 9, "roles": ["worker"]}])
    leader = "web2, process 812"
    assert report(member("web1", 7), foreign, well=True, leader=leader, deploy="web1, process 7") == [
        "Well: 1 site, and 1 process of another program",
        "Fleet 'shop': RedisFleet up, for 60 s",
        "Leader: web2, process 812",
        "Deploy: run by web1, process 7",
        "",
        "Host  Process  State     Seen  Processes         Key       Version",
        "web1        7  started  1.0 s  1 site, 1 worker  0a1b2c3d  /srv/shop/releases/42",
        "web3        9  started  1.0 s  1 worker          0a1b2c3d  /srv/shop/releases/42",
    ]


def test_a_fleet_that_is_not_well_says_why_and_shows_a_half_done_deploy() -> None:
    lost = member("web2", 8, missing=True, seen=40.0, key="f00", accepted=False, version="41", reason="x")
    lines = report(
        member("web1", 7),
        lost,
        well=False,
        reasons=["web2 has given no sign of life for 40 s"],
        versions={"41": ["web2"], "42": ["web1", "web3"]},
    )
    assert lines[0] == "Not well: web2 has given no sign of life for 40 s"
    assert lines[2:4] == ["Leader: none", "The members run 2 versions: '41' on web2; '42' on web1, web3"]
    assert lines[-1].split()[:6] == ["web2", "8", "missing", "40", "s", "1"]
    assert "f00 (another)" in lines[-1]


def test_a_site_that_was_started_again_in_its_place_is_not_missing() -> None:
    def site(id: str, host: str, directory: str, seen: float) -> Member:  # noqa: A002
        processes = [MemberProcess(7, ["site"])]
        return Member(id, host, 7, id, "STARTED", directory, processes=processes, seen=seen)

    living, killed = site("a", "web1", "/srv/shop", 100.0), site("b", "web1", "/srv/shop", 70.0)
    gone, other = site("c", "web2", "/srv/shop", 70.0), site("d", "web1", "/srv/blog", 99.0)
    roster = Roster([gone, killed, living, other], now=101.0, lease=15.0)
    assert (roster.living, roster.missing) == ([living, other], [gone])
    assert [roster.name(each) for each in (living, gone)] == ["web1:7", "web2"]
    assert roster.versions() == {"a": ["web1:7"], "d": ["web1:7"]}
    assert roster.owner_of("web1:7:ab") == living
    assert roster.owner_of("web2:7:ab") is None
    assert roster.owner_of("") is None
