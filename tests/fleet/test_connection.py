"""The state of a connection with the engine, and the time of the next attempt."""

from __future__ import annotations

import time

import pytest

from django_wspbus.fleet.base import Unavailable
from django_wspbus.fleet.connection import LONGEST_WAIT, Connection

ERROR = Unavailable("The queue of notifications is full.")


def test_a_connection_that_has_worked_for_long_is_opened_again_at_once() -> None:
    connection = Connection("commands", 15)
    connection.note_up()
    connection.since -= LONGEST_WAIT
    connection.note_down(ERROR)
    assert connection.retry_at <= time.monotonic()


def test_an_engine_that_fails_soon_after_each_connect_is_asked_less_and_less_often() -> None:
    connection = Connection("commands", 15)
    for _ in range(8):
        connection.note_up()
        began = time.monotonic()
        connection.note_down(ERROR)
    assert connection.retry_at >= began + LONGEST_WAIT


def test_the_log_names_an_engine_that_fails_soon_after_each_connect_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = Connection("commands", 15)
    for _ in range(8):
        connection.note_down(ERROR)
        connection.note_up()
    assert caplog.messages == [f"The engine of the fleet is unavailable (commands): {ERROR}"]
    connection.since -= 15
    connection.note_up()
    connection.note_up()
    assert caplog.messages[1:] == ["The engine of the fleet answers again (commands)."]
