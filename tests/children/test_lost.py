"""The requests that a process was answering when it ended."""

from __future__ import annotations

import time

from django_wspbus.children.lost import MOST_NAMED, lost_requests
from django_wspbus.process.record import Record


def test_requests_in_flight_are_named_with_their_age_the_oldest_first() -> None:
    record, now = Record.make(3), time.monotonic()
    record.slots.writers[0].begin(1, "GET /young", now - 1)
    record.slots.writers[1].begin(2, "POST /old", now - 30)
    record.slots.writers[2].begin(3, "GET /answered", now - 40)
    record.slots.writers[2].end(now - 35)

    assert lost_requests(record) == "POST /old (after 30.0 s), GET /young (after 1.0 s)"
    record.close()


def test_of_many_requests_some_are_named_and_all_are_counted() -> None:
    record = Record.make(MOST_NAMED + 2)
    for slot in range(MOST_NAMED + 2):
        record.slots.writers[slot].begin(slot, "GET /", time.monotonic())
    record.unrecorded = 3

    assert lost_requests(record).endswith("(after 0.0 s), and 5 others")
    record.close()


def test_a_process_without_requests_has_lost_none() -> None:
    record = Record.make(2)

    assert lost_requests(record) == ""
    record.close()
