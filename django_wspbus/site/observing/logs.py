"""The action ``logs``: the latest log records of the site and its processes, from memory."""

from __future__ import annotations

from typing import Any

from ...control.calls import Action, Call
from ...process.exchange import MOST_RECORDS
from ...process.log_memory import LogRecord
from ..assembly import Assembly
from .log_store import Reader

FOLLOW_INTERVAL = 0.2
"""Seconds between two looks for new records while a client follows them."""

MOST_TEXT = 2_000_000
"""Characters in all records of a result, of which JSON may write each in six bytes (`LARGEST_REPLY`)."""


def logs(site: Assembly) -> Action:
    def answer(call: Call) -> dict[str, Any]:
        """Return the latest records; with the argument "follow", send these, and new ones as they come."""
        reader = Reader(site.log_store)
        latest = [record.as_dict() for record in fitting(reader.read()[-MOST_RECORDS:])]
        if not call.argument("follow", bool, False):
            return {"records": latest}
        while True:
            for record in latest:
                call.record(record)
            if call.wait_until_gone(FOLLOW_INTERVAL):
                return {"records": []}
            latest = [record.as_dict() for record in reader.read()]

    return answer


def fitting(records: list[LogRecord]) -> list[LogRecord]:
    """Return the latest of the records whose texts have at most `MOST_TEXT` characters in all."""
    left = MOST_TEXT
    for index in reversed(range(len(records))):
        left -= len(records[index].text)
        if left < 0:
            return records[index + 1 :]
    return records
