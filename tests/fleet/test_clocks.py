"""Clocks that differ between the hosts of a fleet, and clocks that jump, also that of the engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any, Self

import psycopg
import pytest

from ..engines import PostgresServer, RedisServer
from ..faults.test_clock import DAY, JUMPING
from ..processes import DEADLINE
from .fleet_of_sites import FleetOfSites, Site
from .journal import Note
from .site_code import EFFECT

pytestmark = pytest.mark.extended

TIME_NAMESPACE = ["unshare", "--time", "--boottime", "100000", "--monotonic", "100000", "--"]
"""The beginning of a command that runs on a host which was booted a day earlier, as its clocks show it."""


def set_clock(site: Site, seconds: int) -> None:
    """Set the time of day that a site sees, relative to the true one."""
    new = site.project.write("new", str(seconds))
    new.rename(site.project.root / "clock")  # in one step, as every process reads it at any time


def start(fleet: FleetOfSites) -> None:
    """Start two sites, whose clocks differ by two seconds, and those since the boot by a day."""
    works = subprocess.run([*TIME_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    for site, seconds, within in zip(fleet.sites, (0, 2), ([], TIME_NAMESPACE if works else []), strict=True):
        site.project.write("sitecustomize.py", JUMPING)
        set_clock(site, seconds)
        fleet.start(site, within=within, PYTHONPATH=str(site.project.root))


def change_leader(fleet: FleetOfSites, leader: Note) -> Note:
    """Kill a leader process, and wait until another leads."""
    os.kill(leader.pid, signal.SIGKILL)
    return fleet.journal.await_leader(leader.token)


def goes_on(fleet: FleetOfSites, jump: int) -> bool:
    """Make the leader's clock jump, with jobs and messages after it; return whether it leads on."""
    leader = fleet.journal.await_leader()
    site = fleet.site_of(leader)
    (other,) = fleet.others(site)
    runs = len(fleet.journal.notes("runs"))
    set_clock(site, jump)
    fleet.journal.expect("runs", runs + 2)
    fleet.journal.expect("received", sender=site.send(), pid=other.pid)
    return fleet.journal.await_leader().token == leader.token


def test_neither_clocks_that_differ_nor_clocks_that_jump_matter(redis_server: RedisServer) -> None:
    with FleetOfSites(redis_server, lease=2) as fleet:
        start(fleet)
        # On a machine that is very busy, a leader may lose its lease meanwhile for want of time.
        for way in (1, -1):
            assert any(goes_on(fleet, way * 400 * DAY * number) for number in range(1, 4))
        leader = fleet.journal.await_leader()
        for _ in range(2):
            leader = change_leader(fleet, leader)
            fleet.journal.expect("runs", pid=leader.pid)
        check_counts(fleet, fleet.sites[0])
        for each in fleet.sites:
            each.stop()
        fleet.journal.check_leaders()
        fleet.journal.check_ticks()


def jobs_of(site: Site) -> dict[str, Any]:
    command = [sys.executable, "-m", "django_wspbus", "jobs", "--json", "--pid", str(site.pid)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True, cwd="/")
    (job,) = json.loads(shown.stdout)["jobs"]
    return dict(job)


def check_counts(fleet: FleetOfSites, site: Site) -> None:
    """Fail if there is a tick that has neither run, nor is counted as skipped or lost."""
    ticks = fleet.journal.check_ticks()
    job = jobs_of(site)
    counted = sum(job["counts"].values()) + (job["outcome"] == "running")
    assert counted >= job["tick"] - ticks[0] + 1, (job, ticks)


class Clock:
    """The clock of a PostgreSQL, as a context manager, for the sessions with `options`. A test sets it."""

    options = "-c search_path=clock,pg_catalog,public"

    def __init__(self, server: PostgresServer) -> None:
        settings = server.settings
        self._connection = psycopg.connect(
            host=settings["HOST"], port=settings["PORT"], user=settings["USER"], dbname=settings["NAME"]
        )
        self._connection.autocommit = True

    def __enter__(self) -> Self:
        self.query("CREATE SCHEMA clock")
        self.query("CREATE TABLE clock.now AS SELECT to_timestamp(1800000010) AS now")
        self.query(
            "CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
            "AS 'SELECT now FROM clock.now'"
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self.query("DROP SCHEMA clock CASCADE")
        self._connection.close()

    def advance(self, seconds: int) -> None:
        self.query(f"UPDATE clock.now SET now = now + {seconds} * interval '1 second'")

    def query(self, query: str) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def test_a_tick_that_is_due_while_the_leader_changes_is_neither_skipped_nor_run_twice(
    postgres_server: PostgresServer,
) -> None:
    postgres_server.query(EFFECT)
    with (
        Clock(postgres_server) as clock,
        FleetOfSites(postgres_server, interval=20, database={"options": clock.options}) as fleet,
    ):

        def change(leader: Note, seconds: int) -> Note:
            """Put the engine's clock on, and change the leader before it notices."""
            os.kill(leader.pid, signal.SIGSTOP)
            clock.advance(seconds)
            return change_leader(fleet, leader)

        start(fleet)
        leader = fleet.journal.await_leader()
        known = f"SELECT data::jsonb->>'outcome' FROM wspbus_fleet_run WHERE fleet = '{fleet.name}'"
        fleet.journal.await_that(lambda: clock.query(known), "job in the engine")
        for count, seconds in enumerate((20, 20, 20, DAY), 1):
            leader = change(leader, seconds)
            fleet.journal.expect("runs", count)
            fleet.journal.await_that(lambda: clock.query(known) == [("ok",)], "end of the run")
        leader = change(leader, -DAY)
        leader = change(leader, DAY + 20)
        one, two = fleet.sites
        sender = one.send()
        fleet.journal.await_that(
            lambda: one.send() and fleet.journal.notes("received", sender=sender, pid=two.pid), "message"
        )
        fleet.journal.await_that(
            lambda: fleet.journal.unaccounted(sender, one.pid, two.pid) == 0, "message, or gap"
        )
        fleet.journal.expect("runs", 5)
        beginning = 1_800_000_000
        assert fleet.journal.check_ticks() == [
            *(beginning + seconds for seconds in (20, 40, 60, 60 + DAY, 80 + DAY))
        ]
        fleet.journal.check_leaders()
