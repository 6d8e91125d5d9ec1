"""A result of the control socket stays within the bounds of a reply, however much there is to show."""

from __future__ import annotations

from typing import Any

import pytest

from django_wspbus.control.protocol import Result, encode_reply
from django_wspbus.process.log_memory import LogRecord
from django_wspbus.site.observing import logs, stacks


def test_the_oldest_log_records_are_left_out_if_all_are_too_long() -> None:
    records = [LogRecord(number, 0.0, 1, "INFO", "shop", "\0" * 16_384) for number in range(1000)]

    fitting = logs.fitting(records)

    assert fitting == records[-len(fitting) :]
    assert 100 < len(fitting) < 1000
    encode_reply(Result({"records": [record.as_dict() for record in fitting]}))
    assert logs.fitting(records[:10]) == records[:10]


def test_a_process_whose_stacks_are_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "MOST_TEXT", 10)
    entries: list[dict[str, Any]] = [
        {"pid": 1, "stacks": "x" * 10, "error": None},
        {"pid": 2, "stacks": "y", "error": None},
        {"pid": 3, "stacks": None, "error": "it has ended"},
    ]

    first, second, _ = stacks.fitting(entries)

    assert first == entries[0]
    assert second == {
        "pid": 2,
        "stacks": None,
        "error": "there are too many stacks: ask for those of 2",
    }
