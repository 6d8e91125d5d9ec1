"""Messages that may be dropped wait for a process that does not read, and the loss is announced."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from django_wspbus.process import outbox
from django_wspbus.process.encoding import Message, encode
from django_wspbus.process.messages import Link
from django_wspbus.process.outbox import Offered

Pair = tuple[Link, Link]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = (Link(sock, name) for sock, name in zip(socket.socketpair(), ("one", "two"), strict=True))
    yield ours, theirs
    ours.close()
    theirs.close()


def lost(count: int) -> Message:
    return {"lost": count}


def offered(count: int = 1, **message: Any) -> Offered:
    return Offered(encode(message, []), count)


def read_all(ours: Link, theirs: Link) -> list[Message]:
    found: list[Message] = []
    while True:
        ours.flush()
        messages = theirs.receive()
        if not messages and not ours.has_unsent:
            return found
        found += [message for message, _ in messages or []]


def test_offered_messages_arrive_in_their_order_after_those_that_were_posted(pair: Pair) -> None:
    ours, theirs = pair
    ours.offer([offered(number=0)], lost)
    ours.offer([offered(number=number) for number in range(1, 5)], lost)
    ours.post({"order": 1})
    assert read_all(ours, theirs) == [*({"number": number} for number in range(5)), {"order": 1}]
    assert not ours.has_unsent


@pytest.mark.parametrize("together", [1, 20])
def test_the_oldest_are_dropped_counted_and_logged_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, together: int
) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 10)
    ours, theirs = pair
    text = "x" * 2000
    with caplog.at_level(logging.ERROR):
        for first in range(0, 1000, together):
            numbers = range(first, first + together)
            ours.offer([offered(number=number, text=text) for number in numbers], lost)
    assert [record.getMessage() for record in caplog.records] == [
        "one does not read its messages: the oldest are dropped."
    ]
    assert ours.has_unsent
    found = read_all(ours, theirs)
    (notice,) = [message for message in found if "lost" in message]
    arrived = [message["number"] for message in found if "number" in message]
    assert arrived == sorted(arrived)
    assert arrived[-10:] == list(range(990, 1000))
    assert len(arrived) + notice["lost"] == 1000


def test_a_queue_that_stays_full_is_logged_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 10)
    ours, theirs = pair
    flood = [offered(text="x" * 100_000)] * 20  # more than the peer takes at once
    for count in (1, 2):
        for _ in range(5):
            ours.offer(flood, lost)
            assert theirs.receive()
            ours.flush()
        assert len(caplog.records) == count
        read_all(ours, theirs)


def test_a_loss_that_a_dropped_message_announced_is_counted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 10)
    ours, theirs = pair
    text = "x" * 2000
    for number in range(1000):
        ours.offer([offered(3, number=number, text=text)], lost)
    found = read_all(ours, theirs)
    (notice,) = [message for message in found if "lost" in message]
    assert 3 * (len(found) - 1) + notice["lost"] == 3000


def test_a_message_beyond_the_bytes_that_may_wait_is_sent_alone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_BYTES", 1000)
    ours, theirs = pair
    ours.offer([offered(text="x" * 500_000)], lost)
    assert [len(message["text"]) for message in read_all(ours, theirs)] == [500_000]


def test_the_next_program_gets_what_waits(pair: Pair) -> None:
    ours, theirs = pair
    for number in range(200):
        ours.offer([offered(number=number, text="x" * 2000)], lost)
    before = [message["number"] for message, _ in theirs.receive() or []]
    _, unsent = ours.hand_over()
    successor = Link(ours._socket.dup(), "successor", unsent=unsent)
    try:
        after = [message["number"] for message in read_all(successor, theirs)]
    finally:
        successor.close()
    assert before + after == list(range(200))
