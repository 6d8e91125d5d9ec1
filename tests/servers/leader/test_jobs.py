"""Jobs in the leader process of a site, from the tick to `wspbus jobs`."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.controlled import result, site_of
from tests.processes import RunningSite
from tests.servers.load import await_value

from .conftest import Shop, act

MIDNIGHT = 1_799_971_200

ENGINE = f"""
import time

from django_wspbus.fleet.base import Run
from django_wspbus.fleet.local import LocalEngine


class Engine(LocalEngine):
    "It is half a minute after midnight when the site begins, and the job ran an hour before. No lease ends."

    offset = {MIDNIGHT} + 30 - time.time()

    def __init__(self, name, lease=3600):
        super().__init__(name, lease)
        self.claim(Run("import", {MIDNIGHT} - 3600))

    def time(self):
        return time.time() + self.offset
"""

SLOW = """
    def read(self, name):
        time.sleep(0.2)
        return super().read(name)

    def take(self, *args):
        time.sleep(0.2)
        return super().take(*args)
"""

FLEET = {"NAME": "shop", "BACKEND": "shop.engine.Engine"}

JOB = """
import time
from pathlib import Path

GO = Path(__file__).parent.parent / "go"


@cron("0 0 * * *", name="import", timezone="UTC")
def work():
    note("works")
    while not GO.exists():
        time.sleep(0.01)
    note("has worked")
"""

STEADY_JOB = JOB.replace("sleep(0.01)", "sleep(0.25)\n        note('goes on')")


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.write("shop/engine.py", ENGINE)
    shop.leads(JOB)
    shop.serves(shop.server, FLEET=FLEET)
    return shop


def job_of(site: RunningSite) -> dict[str, Any]:
    job: dict[str, Any]
    (job,) = result(site_of(site), "jobs")["jobs"]
    return job


def await_outcome(site: RunningSite, outcome: str) -> dict[str, Any]:
    await_value(lambda: job_of(site)["outcome"], outcome)
    return job_of(site)


def test_a_job_runs_in_the_leader_process_and_is_shown(shop: Shop) -> None:
    shop.write("go", "")
    with shop.serve("-v2") as site:
        (leader,) = shop.expect_leaders(1)
        (worked,) = shop.expect_note("has worked")
        assert worked.pid == leader
        job = await_outcome(site, "ok")
        assert (job["name"], job["pid"], job["counts"]) == ("import", leader, {"ok": 1})
        assert (job["tick"], job["next"]) == (MIDNIGHT, MIDNIGHT + 86400)
        shown = shop.run("wspbus", "jobs", "--pid", str(site.pid)).stdout
        assert "import" in shown
        assert "1 ok" in shown
        assert site.stop() == 0


@pytest.mark.extended
def test_reloads_hand_over_while_a_job_goes_on_in_the_oldest_process(shop: Shop) -> None:
    shop.leads(STEADY_JOB)
    with shop.serve("-v2") as site:
        (first,) = shop.expect_leaders(1)
        shop.expect_note("works")
        act(site, "graceful")
        shop.expect_leaders(2)
        act(site, "graceful")
        _, _, third = shop.expect_leaders(3)
        shop.expect_note("goes on", len(shop.notes("goes on")) + 10)  # longer than requests could
        shop.write("go", "")
        (worked,) = shop.expect_note("has worked")
        assert worked.pid == first != third
        assert await_outcome(site, "ok")["pid"] == first
        assert site.stop() == 0


@pytest.mark.extended
def test_a_run_whose_process_is_killed_is_lost(shop: Shop) -> None:
    with shop.serve("-v2") as site:
        (leader,) = shop.expect_leaders(1)
        shop.expect_note("works")
        os.kill(leader, signal.SIGKILL)
        site.wait_for_line("Job import: the run of .* is lost")
        assert await_outcome(site, "lost")["counts"] == {"lost": 1}
        shop.expect_leaders(2)
        assert site.stop() == 0


@pytest.mark.extended
def test_a_job_that_outlasts_the_exit_is_cut_off_and_named(shop: Shop) -> None:
    shop.serves(shop.server, FLEET=FLEET, STOP_TIMEOUT=4)
    with shop.serve("-v2") as site:
        shop.expect_leaders(1)
        shop.expect_note("works")
        assert site.stop() == 70
    assert any("jobs cut off in process" in line and "import" in line for line in site.lines)
    assert shop.notes("leads no more") != []


@pytest.mark.extended
@pytest.mark.parametrize("methods", ["", SLOW], ids=["quick", "while the engine answers"])
def test_ticks_and_runs_survive_a_restart_of_the_site(shop: Shop, methods: str) -> None:
    shop.write("shop/engine.py", ENGINE + methods)
    shop.write("go", "")
    with shop.serve("-v2") as site:
        shop.expect_leaders(1)
        before = await_outcome(site, "ok")
        act(site, "restart")
        shop.expect_leaders(2)
        after = job_of(site)
        assert (after["tick"], after["counts"]) == (before["tick"], {"ok": 1})
        assert site.stop() == 0
    assert "does not answer" not in site.output
