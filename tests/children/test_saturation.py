"""The saturation of a child, by the records of its workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_wspbus.children.saturation import busy_for
from django_wspbus.process.record import Record
from django_wspbus.process.slots import BACK_TO_BACK


@pytest.fixture
def workers() -> Iterator[list[Record]]:
    """Two workers of two threads each."""
    records = [Record.make(4) for _ in range(2)]
    for record in records:
        record.threads = 2
    yield records
    for record in records:
        record.close()


def begin(record: Record, slot: int, now: float) -> None:
    record.slots.writers[slot].begin(slot, "GET /", now)


def test_it_is_busy_since_its_last_free_thread_got_a_request(workers: list[Record]) -> None:
    for record, slot, now in ((0, 0, 10.0), (0, 1, 12.0), (1, 0, 9.0)):
        begin(workers[record], slot, now)
        assert busy_for(workers, 13.0) is None
    begin(workers[1], 3, 11.0)
    assert busy_for(workers, 20.0) == 8.0


def test_a_thread_that_takes_one_request_after_another_stays_busy(workers: list[Record]) -> None:
    (first, _) = workers
    begin(first, 0, 10.0)
    begin(first, 1, 10.0)
    first.slots.writers[0].end(15.0)
    assert busy_for([first], 15.0 + BACK_TO_BACK / 2) is not None
    assert busy_for([first], 15.0 + BACK_TO_BACK * 2) is None
    begin(first, 0, 15.0 + BACK_TO_BACK / 2)
    assert busy_for([first], 16.0) == 6.0


def test_requests_beyond_the_number_of_threads_count_no_more_than_the_threads(workers: list[Record]) -> None:
    (first, _) = workers
    for slot, now in enumerate((10.0, 11.0, 14.0)):
        begin(first, slot, now)
    assert busy_for([first], 15.0) == 4.0


def test_what_is_not_known_is_not_saturated(workers: list[Record]) -> None:
    (first, _) = workers
    begin(first, 0, 10.0)
    begin(first, 1, 10.0)
    assert busy_for([first], 20.0) == 10.0
    assert busy_for([first, None], 20.0) is None
    assert busy_for([], 20.0) is None
    first.threads = 0
    assert busy_for([first], 20.0) is None
