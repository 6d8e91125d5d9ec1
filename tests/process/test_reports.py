"""Reports travel as messages, and arrive as what they were."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from django_wspbus.process.reports import (
    Answered,
    Broadcast,
    Died,
    Expected,
    Failed,
    FilesReopened,
    Hello,
    Ready,
    Replied,
    Report,
    RetirementPolicy,
    Standby,
    Stopped,
    Unsent,
    as_message,
    read_report,
)

REPORTS: list[Report] = [
    Hello("worker", 4711),
    Expected(2, RetirementPolicy(requests=100, requests_jitter=10, request_timeout=2.5)),
    Standby(4711),
    Ready(4711),
    Answered(4711),
    Failed("a start listener failed.", 70),
    Died(4711),
    Stopped(4711, ["a stop listener failed."], "GET /"),
    Replied(3, 4711, [None, "x"], None),
    FilesReopened(4711, ["/var/log/shop.log"], ["/var/log/site.log (Permission denied)"]),
    Broadcast("prices.changed", [1, {"sku": "x"}]),
    Unsent(3),
]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_is_the_same_after_its_way_through_json(report: Report) -> None:
    assert read_report(json.loads(json.dumps(as_message(report)))) == report


def test_every_kind_of_report_is_tried_here() -> None:
    assert {type(report) for report in REPORTS} == set(get_args(Report))


@pytest.mark.parametrize("message", [{}, {"report": "Promoted", "pid": 1}, {"report": "Ready"}])
def test_what_is_no_report_is_refused(message: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        read_report(message)
