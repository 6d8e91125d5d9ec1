"""The entries of the log for stuck requests of a process that runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_wspbus.children.retiring.stuck import StuckLog
from django_wspbus.process.switchboard import Switchboard
from tests.servers.load import await_that

from ..test_stacks import process, wait


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    switchboard = Switchboard()
    yield switchboard
    switchboard.close()


@pytest.mark.parametrize(
    ("threads", "thread", "expected"),
    [
        (2, None, "in wait\n"),
        (2, 1, "Its thread has ended."),
        (0, 1, "Its greenlet has no stack. These are the stacks of its process:\n"),
    ],
    ids=["thread", "ended", "greenlet"],
)
def test_the_entry_has_the_stack_or_says_why_there_is_none(
    switchboard: Switchboard, threads: int, thread: int | None, expected: str
) -> None:
    log: list[str] = []
    with process(wait) as (pid, record):
        record.threads = threads
        if thread is not None:
            record.slots.writers[0].begin(thread, "GET /", time.monotonic())
        child: Any = SimpleNamespace(alias="shop", records={pid: record}, stuck_logged=set())
        stuck = StuckLog(child, switchboard, lambda message, level: log.append(message))

        stuck.note(pid, record.slots.in_flight())

        await_that(lambda: len(log) == 1)
    (entry,) = log
    assert re.match(rf"A request of the server 'shop' is stuck in worker {pid}: GET /, begun \d+\.\d", entry)
    assert expected in entry
    assert ("in wait\n" in entry) is (expected != "Its thread has ended.")
