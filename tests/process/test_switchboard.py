"""The thread that waits for what the processes of a site send."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from django_wspbus.process.messages import Link, Received
from django_wspbus.process.switchboard import Switchboard

from ..processes import DEADLINE


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    switchboard = Switchboard()
    yield switchboard
    switchboard.close()


def test_the_function_of_a_descriptor_is_called_until_it_is_forgotten(
    switchboard: Switchboard,
) -> None:
    heard: list[tuple[str, object]] = []
    changed = threading.Condition()
    pairs = {name: [Link(each) for each in socket.socketpair()] for name in ("a", "b")}

    def hear(name: str) -> None:
        with changed:
            received = pairs[name][0].receive()
            assert received is not None
            heard.append((name, [message for message, _ in received]))
            changed.notify_all()

    for name in pairs:
        switchboard.watch(pairs[name][0].fileno(), lambda name=name: hear(name))
    with changed:
        for number, name in enumerate("abab"):
            pairs[name][1].send({"number": number})
            assert changed.wait_for(lambda number=number: len(heard) == number + 1, DEADLINE)
    switchboard.forget(pairs["a"][0].fileno())
    switchboard.forget(pairs["a"][0].fileno())  # likewise
    pairs["a"][1].send({"unheard": 1})
    with changed:
        pairs["b"][1].send({"number": 4})
        assert changed.wait_for(lambda: len(heard) == 5, DEADLINE)
    switchboard.close()
    for name in pairs:
        for link in pairs[name]:
            link.close()

    assert heard == [(name, [{"number": number}]) for number, name in enumerate("ababb")]


def test_what_fails_for_one_descriptor_does_not_deafen_the_others(
    switchboard: Switchboard, caplog: pytest.LogCaptureFixture
) -> None:
    heard = threading.Event()
    ends = [socket.socketpair() for _ in range(2)]

    def fail() -> None:
        ends[0][0].recv(100)
        raise ValueError("no JSON")

    switchboard.watch(ends[0][0].fileno(), fail)
    switchboard.watch(ends[1][0].fileno(), lambda: (ends[1][0].recv(100), heard.set()))
    with caplog.at_level(logging.ERROR, "django_wspbus"):
        ends[0][1].send(b"{")
        ends[1][1].send(b"{")
        assert heard.wait(DEADLINE)
        switchboard.close()
    for end in (*ends[0], *ends[1]):
        end.close()

    assert "no JSON" in caplog.text


def test_what_a_peer_does_not_take_at_once_is_sent_when_it_reads(switchboard: Switchboard) -> None:
    ours, theirs = map(Link, socket.socketpair())
    switchboard.watch(ours.fileno(), lambda: None, ours)
    switchboard.post(ours, {"text": "x" * 5_000_000})
    switchboard.post(ours, {"after": 1})
    assert ours.has_unsent
    received: list[Received] = []
    while len(received) < 2:
        more = theirs.receive(DEADLINE)
        assert more is not None
        received += more
    switchboard.close()
    ours.close()
    theirs.close()

    assert len(received[0].message["text"]) == 5_000_000
    assert received[1].message == {"after": 1}


def test_a_peer_that_breaks_the_rules_is_logged_in_a_line(
    switchboard: Switchboard, caplog: pytest.LogCaptureFixture
) -> None:
    heard = threading.Event()
    ours, theirs = socket.socketpair()
    link = Link(ours, "Process 4711")

    def hear() -> None:
        if link.receive() is None:
            switchboard.forget(link.fileno())
            heard.set()

    switchboard.watch(link.fileno(), hear, link)
    with theirs, caplog.at_level(logging.ERROR, "django_wspbus"):
        theirs.send(b"GET / HTTP/1.1")
        assert heard.wait(DEADLINE)
        switchboard.close()
    link.close()

    (record,) = caplog.records
    assert record.getMessage().startswith("Process 4711 sent a message of version 71, ")
    assert record.exc_info is None


def test_a_flood_of_wake_ups_does_not_block_the_caller(switchboard: Switchboard) -> None:
    held, go_on = threading.Event(), threading.Event()
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def hold() -> None:
            ours.recv(100)
            held.set()
            assert go_on.wait(DEADLINE)

        switchboard.watch(ours.fileno(), hold)
        theirs.send(b".")
        assert held.wait(DEADLINE)
        for _ in range(2000):
            switchboard.forget(-1)
        go_on.set()
        switchboard.close()


def test_what_is_asked_of_a_paused_switchboard_waits_until_it_resumes(switchboard: Switchboard) -> None:
    called = threading.Event()
    switchboard.resume()
    switchboard.pause()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        switchboard.call_later(0, called.set)
        switchboard.watch(ours.fileno(), lambda: None)
        assert "Site switchboard" not in [thread.name for thread in threading.enumerate()]
        assert not called.is_set()
        switchboard.resume()
        assert called.wait(DEADLINE)
        switchboard.close()


def test_it_may_be_closed_without_having_watched_anything() -> None:
    Switchboard().close()
