"""Links between processes, and the switchboard that hears them."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from django_wspbus.link import Link, Switchboard, hand_in, take_in

from .processes import DEADLINE


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    ours, theirs = map(Link, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    switchboard = Switchboard()
    yield switchboard
    switchboard.close()


def test_messages_arrive_whole_and_in_order_however_they_were_cut(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    messages = [{"number": number, "text": "x" * 20_000 + "\n€"} for number in range(20)]
    sender = threading.Thread(target=lambda: [theirs.send(message) for message in messages])
    sender.start()
    received = []
    while len(received) < 20:
        part = ours.receive()
        assert part is not None
        received += part
    sender.join()

    assert received == messages


def test_the_end_is_none_also_if_the_peer_broke_off(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    ours.send({"not": "read"})  # which makes it a reset
    theirs.close()

    assert ours.receive() is None


def test_a_value_that_json_does_not_know_is_refused_before_anything_is_sent(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    with pytest.raises(TypeError):
        ours.send({"set": {1, 2}})
    ours.send({"after": 1})

    assert theirs.receive() == [{"after": 1}]


def test_a_link_is_handed_in_over_the_pair_and_stays_with_this_process(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    first, second = hand_in(theirs), hand_in(theirs)
    taken = [take_in(ours), take_in(ours)]
    for mine, other in zip((first, second), taken, strict=True):
        assert other is not None
        mine.send({"hello": mine.fileno()})
        assert other.receive() == [{"hello": mine.fileno()}]
        assert not os.get_inheritable(other.fileno())
        mine.close()
        other.close()


def test_what_arrives_without_its_descriptor_is_not_taken_for_the_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.send(b"+")

    with pytest.raises(OSError, match="No descriptor"):
        take_in(ours)


@pytest.mark.parametrize("unread", [False, True])
def test_the_end_of_the_pair_is_none(pair: tuple[socket.socket, socket.socket], unread: bool) -> None:
    ours, theirs = pair
    if unread:
        ours.send(b"never read")
    theirs.close()

    assert take_in(ours) is None


def test_the_switchboard_calls_for_each_descriptor_until_told_to_forget_it(switchboard: Switchboard) -> None:
    heard: list[tuple[str, object]] = []
    changed = threading.Condition()
    pairs = {name: [Link(each) for each in socket.socketpair()] for name in ("a", "b")}

    def hear(name: str) -> None:
        with changed:
            heard.append((name, pairs[name][0].receive()))
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


def test_a_flood_of_wishes_does_not_block_who_has_them(switchboard: Switchboard) -> None:
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


def test_it_may_be_closed_without_having_watched_anything() -> None:
    Switchboard().close()
