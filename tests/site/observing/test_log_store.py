"""The log records of a site: its own, those of its processes, and those of processes that have ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from django_wspbus.children.children import Children
from django_wspbus.process.log_memory import encode
from django_wspbus.process.record import Record
from django_wspbus.site.observing.log_store import LogStore, Reader


class Child:
    def __init__(self) -> None:
        self.records: dict[int, Record] = {}


class FakeChildren:
    """The part of `Children` that the store uses."""

    def __init__(self) -> None:
        self.child = Child()
        self.record_readers: list[Callable[..., None]] = []

    def every(self) -> list[Child]:
        return [self.child]

    def start(self, pid: int) -> Record:
        self.child.records[pid] = record = Record.make(1)
        return record

    def end(self, pid: int) -> None:
        record = self.child.records.pop(pid)
        for read in self.record_readers:
            read(self.child, pid, record)
        record.close()


@pytest.fixture
def children() -> Any:
    children = FakeChildren()
    yield children
    for pid in list(children.child.records):
        children.end(pid)


def store_of(children: FakeChildren, before: list[str] | None = None) -> LogStore:
    return LogStore(cast(Children, children), before or [])


def log(record: Record, pid: int, text: str) -> None:
    record.ring.write(encode(time.monotonic_ns(), time.time(), pid, "INFO", "shop", text))


def texts(store: LogStore) -> list[str]:
    return [record.text for record in Reader(store).read()]


def test_records_of_all_processes_come_in_the_order_in_which_they_were_made(children: FakeChildren) -> None:
    store = store_of(children)
    one, other = children.start(1), children.start(2)
    log(one, 1, "first")
    log(other, 2, "second")
    log(one, 1, "third")

    assert texts(store) == ["first", "second", "third"]


def test_the_records_of_a_process_outlive_it(children: FakeChildren) -> None:
    store = store_of(children)
    log(children.start(1), 1, "last words")
    children.end(1)
    log(children.start(1), 1, "another process of the same PID")

    assert texts(store) == ["last words", "another process of the same PID"]


def test_only_the_latest_thousand_are_shown(children: FakeChildren) -> None:
    store = store_of(children)
    record = children.start(1)
    for number in range(1500):
        log(record, 1, str(number))

    assert texts(store) == [str(number) for number in range(500, 1500)]


def test_a_reader_gets_each_record_once_also_if_its_process_ends(children: FakeChildren) -> None:
    store = store_of(children)
    record = children.start(1)
    log(record, 1, "before")
    reader = Reader(store)
    assert [each.text for each in reader.read()] == ["before"]

    log(record, 1, "unread")
    children.end(1)
    log(children.start(2), 2, "after")

    assert [each.text for each in reader.read()] == ["unread", "after"]
    assert reader.read() == []


def test_the_next_program_has_the_records_that_this_one_hands_over(children: FakeChildren) -> None:
    store = store_of(children)
    log(children.start(os.getpid()), os.getpid(), "before the restart")
    children.end(os.getpid())

    assert texts(store_of(FakeChildren(), store.hand_over())) == ["before the restart"]
