"""Relays send and receive over an engine: of each kind, as far as real servers are there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest

from django_wspbus.fleet.base import Engine, Member
from django_wspbus.fleet.envelope import Draft, Message, Sender
from django_wspbus.fleet.relay import Relay, RelayState
from django_wspbus.process.fleet import checked

from ..processes import DEADLINE
from ..servers.load import await_that
from .conftest import Connect

KEYS = ["the secret of the shop"]


class Inbox:
    """The receiver of a relay, which keeps everything."""

    def __init__(self) -> None:
        self.delivered: list[Any] = []
        self.heard: list[tuple[str, Any]] = []
        self.missed: list[tuple[str, int]] = []
        self._changed = threading.Condition()

    def deliver(self, message: Message) -> None:
        with self._changed:
            self.delivered.append(message.args[0])
            self._changed.notify()

    def miss(self, sender: str, count: int) -> None:
        with self._changed:
            self.missed.append((sender, count))
            self._changed.notify()

    def flush(self) -> None:
        pass

    def hear(self, message: Message) -> None:
        with self._changed:
            self.heard.append((message.kind, message.args))
            self._changed.notify()

    def expect(self, condition: Callable[[], Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE), (self.delivered, self.heard, self.missed)


class Node:
    """A relay with its inbox."""

    def __init__(
        self, engine: Engine, pid: int, keys: list[str] = KEYS, state: RelayState | None = None
    ) -> None:
        self.inbox = Inbox()
        self.pid = pid
        self.relay = Relay(
            engine,
            keys,
            lambda epoch: Sender(engine.name, "host", pid, epoch),
            lambda: Member(self.relay.id, "host", pid, "", "STARTED"),
            self.inbox,
            state or RelayState(),
        )
        self.relay.start()
        assert self.relay.messages.has_listened.wait(DEADLINE)

    def say(self, value: Any) -> None:
        self.relay.publish("message", "shop.changed", [value], 100)

    def expect_rejected(self, **reasons: int) -> None:
        """Wait until so many messages have been dropped for these reasons, and for no others."""
        wanted = {reason.replace("_", "-"): count for reason, count in reasons.items()}

        def are_dropped() -> bool:
            rejected = dict(self.relay.messages.rejected)
            # A member with another key sends a ping, too, if the test takes seconds.
            return rejected.keys() == wanted.keys() and all(rejected[each] >= wanted[each] for each in wanted)

        await_that(are_dropped, lambda: self.relay.messages.rejected)


Start = Callable[..., Node]


@pytest.fixture
def start(connect: Connect) -> Iterator[Start]:
    nodes: list[Node] = []

    def make(name: str = "shop", **options: Any) -> Node:
        nodes.append(Node(connect(name), len(nodes) + 1, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        node.relay.close(5)


def send_raw(sender: Node, receiver: Node, data: bytes) -> None:
    """Send bytes that no relay has made."""
    sender.relay.commands.call(lambda engine: engine.send([(None, data)]), DEADLINE)


def test_messages_arrive_in_the_order_of_their_sender(start: Start) -> None:
    one, other, third = start(), start(), start()
    for number in range(250):
        one.say(number)
    for node in (other, third):
        node.inbox.expect(lambda node=node: len(node.inbox.delivered) == 250)
        assert node.inbox.delivered == list(range(250))
        assert node.inbox.missed == []
    assert one.inbox.delivered == []  # its processes have got them at once


def test_a_message_to_one_member_reaches_only_that_one(start: Start) -> None:
    one, other, third = start(), start(), start()
    one.relay.send(other.relay.id, "order", [1])
    one.relay.publish("note", "", [2], 10)
    other.inbox.expect(lambda: ("note", [2]) in other.inbox.heard)
    third.inbox.expect(lambda: ("note", [2]) in third.inbox.heard)
    assert ("order", [1]) in other.inbox.heard
    assert ("order", [1]) not in third.inbox.heard


def test_a_gap_is_counted_at_the_next_message(start: Start) -> None:
    one, other = start(), start()
    one.say("first")
    other.inbox.expect(lambda: other.inbox.delivered == ["first"])
    with one.relay.turn:
        one.relay.number += 3
    one.say("second")
    other.inbox.expect(lambda: other.inbox.delivered == ["first", "second"])
    assert other.inbox.missed == [("host:1", 3)]


def test_a_gap_at_the_end_is_announced(start: Start) -> None:
    one, other = start(), start()
    one.say("first")
    other.inbox.expect(lambda: other.inbox.delivered == ["first"])
    one.relay.skip(2)
    other.inbox.expect(lambda: other.inbox.missed == [("host:1", 2)])


def test_the_next_program_of_a_member_learns_what_it_has_missed(start: Start) -> None:
    one, other = start(), start()
    one.say("first")
    other.inbox.expect(lambda: other.inbox.delivered == ["first"])
    other.relay.close(5, leaves=False)
    state = other.relay.state
    one.say("missed")
    await_that(lambda: not one.relay.commands.waiting)
    successor = start(state=state)
    successor.inbox.expect(lambda: successor.inbox.missed == [("host:1", 1)])
    one.say("second")
    successor.inbox.expect(lambda: successor.inbox.delivered == ["second"])
    successor.say("third")
    one.inbox.expect(lambda: one.inbox.delivered == ["third"])
    assert one.inbox.missed == []


def test_the_next_program_of_a_member_drops_a_replayed_message_without_a_number(start: Start) -> None:
    one, other = start(), start()
    sender = Sender(one.relay.engine.name, "host", 1, one.relay.id)
    draft = Draft.to(None, "message", ["once"], channel="shop.changed")
    once = one.relay.signer.sign(draft, sender, one.relay.clock.now())
    send_raw(one, other, once)
    other.inbox.expect(lambda: other.inbox.delivered == ["once"])
    other.relay.close(5, leaves=False)
    handed_over = json.loads(json.dumps(asdict(other.relay.state)))
    successor = start(state=RelayState(**handed_over))
    send_raw(one, successor, once)
    successor.expect_rejected(replayed=1)
    assert successor.inbox.delivered == []


def test_two_names_do_not_hear_each_other(start: Start) -> None:
    shop, blog, other = start("shop"), start("blog"), start("shop")
    blog.say("blog")
    shop.say("shop")
    other.inbox.expect(lambda: other.inbox.delivered == ["shop"])
    assert blog.inbox.delivered == []


def test_messages_of_another_key_are_dropped_and_counted(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    one, stranger = start(), start(keys=["another secret"])
    stranger.say("x")
    one.expect_rejected(key=2)  # with the hello of the stranger
    assert one.inbox.delivered == []
    line = next(each for each in caplog.messages if "signed with another SECRET_KEY." in each)
    assert line.startswith("The fleet dropped a message ")
    assert " SECRET_KEY_FALLBACKS. " in line


def test_a_fallback_is_accepted_while_keys_change(start: Start) -> None:
    old, new = start(keys=["old", "new"]), start(keys=["new", "old"])
    old.say("of the old key")
    new.say("of the new key")
    new.inbox.expect(lambda: new.inbox.delivered == ["of the old key"])
    old.inbox.expect(lambda: old.inbox.delivered == ["of the new key"])


def test_forged_and_replayed_messages_are_dropped_and_counted(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = start(), start()
    sender = Sender(one.relay.engine.name, "host", 1, one.relay.id)
    now = one.relay.clock.now()

    def signed(draft: Draft, time: float = now, sender: Sender = sender) -> bytes:
        return one.relay.signer.sign(draft, sender, time)

    def send(data: bytes) -> None:
        send_raw(one, other, data)

    first = signed(Draft("message", "shop.changed", ["first"], 1))
    send(b"no message of ours")
    send(first)
    send(first)
    send(first.replace(b"first", b"forge"))
    send(signed(Draft("message", "shop.changed", ["x"], 2), now + 61))
    send(signed(Draft("message", "shop.changed", ["x"], 2), now - 61))
    send(signed(Draft("message", "exit", [], 2)))
    send(signed(Draft.to(None, "ask", [[], 1], channel="exit")))
    send(signed(Draft("message", "shop.changed", ["x"], 3), sender=Sender("blog", "host", 1, "e")))
    once = signed(Draft.to(None, "message", ["once"], channel="shop.changed"), now + 55)
    send(once)
    send(once)
    send(signed(Draft.to(one.relay.id, "order", [])))
    other.inbox.expect(lambda: other.inbox.delivered == ["first", "once"])
    other.expect_rejected(unsigned=2, replayed=2, future=1, old=1, built_in=2, foreign=1, misdirected=1)
    dropped = {each.partition(".")[0] for each in caplog.messages if "dropped a message" in each}
    assert {
        "The fleet dropped a message without a valid signature",
        "The fleet dropped a message that had come before (signed by host:1)",
        "The fleet dropped a message on a channel of the bus itself (signed by host:1)",
    } <= dropped


def test_a_message_of_the_most_bytes_arrives_whole_and_a_larger_one_is_refused(start: Start) -> None:
    one, two = start(), start()
    largest = one.relay.engine.largest

    def message(size: int) -> str:
        """Return the argument of a message that has so many bytes, as `bus.broadcast` checks it."""
        (value,) = checked("shop.changed", ["x" * (size - len('"shop.changed"[""]'))], largest)
        return str(value)

    values = [message(largest - 1), message(largest), "small"]
    for value in values:
        one.say(value)
    two.inbox.expect(lambda: len(two.inbox.delivered) == 3)
    assert two.inbox.delivered == values
    with pytest.raises(ValueError, match="are the most"):
        message(largest + 1)
