"""The output of the action ``jobs``, and the line about the leader process in ``status``."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from django_wspbus.command.blocks import Block
from django_wspbus.command.jobs import jobs, leader
from django_wspbus.command.plain import lines_of

JOB = {
    "name": "shop.tasks.import_prices",
    "schedule": "0 3 * * *",
    "timezone": "Europe/Zurich",
    "next": 1_800_000_000.0,
    "tick": 1_799_913_600.0,
    "host": "web-1",
    "pid": 4711,
    "seconds": 2.5,
    "outcome": "failed",
    "error": "ValueError: no prices",
    "counts": {"ok": 7, "failed": 1},
}

NEVER_RUN = {"name": "shop.tasks.clean", "schedule": "* * * * *", "outcome": "", "host": "", "pid": 0}


def shown(blocks: Iterable[Block]) -> str:
    return "\n".join(line for block in blocks for line in lines_of(block))


def test_each_job_has_a_row_and_the_error_of_its_last_run_a_line() -> None:
    header, failed, fresh, error = shown(jobs({"jobs": [JOB, NEVER_RUN]})).splitlines()
    assert header.split()[:2] == ["Job", "Schedule"]
    for part in ("shop.tasks.import_prices", "Europe/Zurich", "web-1", "4711", "failed", "7 ok, 1 failed"):
        assert part in failed
    assert fresh.startswith("shop.tasks.clean")
    assert error == "shop.tasks.import_prices: ValueError: no prices"


def test_without_jobs_it_says_so_and_why_none_can_run() -> None:
    assert shown(jobs({"jobs": []})) == "There are no jobs."
    text = shown(jobs({"jobs": [NEVER_RUN], "trouble": "The leader process does not run: it crashed"}))
    assert text.startswith("The leader process does not run: it crashed\n")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            {"state": "leads", "pid": 7, "since": 3.0, "token": 99, "jobs": 2},
            "Leader: process 7 leads, for 3.0 s, with the token 99; 2 jobs",
        ),
        (
            {"state": "candidate", "pid": 7, "holder": "web-2:8:ab"},
            "Leader: process 7 waits; web-2:8:ab leads",
        ),
        ({"state": "candidate", "pid": 7, "holder": ""}, "Leader: process 7 waits"),
        ({"state": "booting", "pid": None}, "Leader: no process yet"),
        ({"state": "down", "trouble": "it was killed"}, "Leader: no process: it was killed"),
    ],
)
def test_the_state_of_the_leader_process_is_a_line(status: dict[str, object], expected: str) -> None:
    assert shown(leader(status)).strip() == expected


def test_a_site_without_a_leader_process_has_no_such_line() -> None:
    assert list(leader(None)) == []
