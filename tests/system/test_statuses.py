from __future__ import annotations

import signal

import pytest

from django_wspbus.system.statuses import how_ended


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (3, "exited with status 3"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-(signal.SIGRTMIN + 6), f"was killed by signal {signal.SIGRTMIN + 6}"),
    ],
)
def test_the_end_of_a_process_has_words_for_every_status(status: int, words: str) -> None:
    assert how_ended(status) == words
