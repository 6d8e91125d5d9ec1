"""Messages that wait while the engine is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

import pytest

from django_wspbus.fleet import outgoing, sending
from django_wspbus.fleet.base import Member, Unavailable
from django_wspbus.fleet.envelope import Sender
from django_wspbus.fleet.local import LocalEngine
from django_wspbus.fleet.relay import Relay, RelayState

from ..processes import DEADLINE
from ..servers.load import await_that
from .test_relay import KEYS, Inbox, Node


class FickleEngine(LocalEngine):
    """An engine that is away, or loses an answer, if a test says so."""

    is_away = False
    loses_answer = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.losses: list[bytes] = []
        """The next message that contains the first of these texts gets lost, then that with the second."""
        self.loses_answers_to_hello = False
        self.sizes: list[int] = []
        """The bytes of the messages of each call."""

    def beat(self, member: Member) -> float:
        if self.is_away:
            raise Unavailable("It is away.")
        return super().beat(member)

    def send(self, messages: Sequence[tuple[str | None, bytes]]) -> None:
        if self.is_away:
            raise Unavailable("It is away.")
        self.sizes.append(sum(len(data) for _, data in messages))
        super().send([each for each in messages if not self._loses(each[1])])
        if self.loses_answer:
            self.loses_answer = False
            raise Unavailable("The answer is lost.")

    def _loses(self, message: bytes) -> bool:
        if self.loses_answers_to_hello and b'"o":' in message:
            return True
        is_lost = bool(self.losses) and self.losses[0] in message
        if is_lost:
            del self.losses[0]
        return is_lost


@pytest.fixture
def engine() -> FickleEngine:
    return FickleEngine("shop")


@pytest.fixture
def nodes(engine: FickleEngine) -> Iterator[list[Node]]:
    """Two relays, of which the second one knows the first."""
    made = [Node(engine, 1), Node(engine, 2)]
    made[0].say("first")
    made[1].inbox.expect(lambda: made[1].inbox.delivered == ["first"])
    yield made
    for node in made:
        node.relay.close(5)


def test_too_many_messages_drop_the_oldest_and_the_others_count_them(
    engine: FickleEngine, nodes: list[Node], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outgoing, "MOST_WAITING", 100)
    one, other = nodes
    engine.is_away = True
    for number in range(150):
        one.say(number)
    assert one.relay.commands.waiting == 100
    engine.is_away = False
    other.inbox.expect(lambda: 149 in other.inbox.delivered)
    arrived = other.inbox.delivered[1:]
    assert arrived == list(range(150 - len(arrived), 150))
    assert sum(count for _, count in other.inbox.missed) == 150 - len(arrived)
    assert one.relay.commands.dropped >= 50
    assert caplog.text.count("the oldest are dropped") == 1


def test_large_messages_to_one_member_are_sent_in_several_calls(
    engine: FickleEngine, nodes: list[Node]
) -> None:
    one, other = nodes
    engine.is_away = True
    for _ in range(100):
        one.relay.send(other.relay.id, "reply", ["x" * 2**16])
    engine.is_away = False
    other.inbox.expect(lambda: [kind for kind, _ in other.inbox.heard].count("reply") == 100)
    assert max(engine.sizes) <= outgoing.MOST_BYTES_IN_BATCH


def test_the_log_is_written_while_no_message_waits_for_it(
    engine: FickleEngine, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler of the log waits until another thread has sent a message."""
    monkeypatch.setattr(outgoing, "MOST_WAITING", 10)
    one, is_sent, waited = nodes[0], threading.Event(), []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "the oldest are dropped" in record.getMessage():
                waited.append(is_sent.wait(DEADLINE))

    logger, handler = logging.getLogger("django_wspbus"), Handler()
    logger.addHandler(handler)
    try:
        engine.is_away = True
        for number in range(20):
            one.say(number)
        is_sent.set()
        engine.is_away = False
        nodes[1].inbox.expect(lambda: 19 in nodes[1].inbox.delivered)
    finally:
        logger.removeHandler(handler)
    assert waited == [True]


def test_messages_whose_answer_is_lost_arrive_once(engine: FickleEngine, nodes: list[Node]) -> None:
    one, other = nodes
    engine.loses_answer = True
    for number in range(150):
        one.say(number)
    other.inbox.expect(lambda: 149 in other.inbox.delivered)
    assert other.inbox.delivered == ["first", *range(150)]
    assert other.inbox.missed == []


@pytest.mark.parametrize(
    "losses", [[b'"last"'], [b'"last"', b'"k":"beat"']], ids=["the message", "and the announcement of it"]
)
def test_a_loss_at_the_end_shows_although_no_message_follows(
    engine: FickleEngine, nodes: list[Node], losses: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "QUIET", 0.05)
    one, other = nodes
    engine.loses_answers_to_hello = True  # which has the last number, too
    engine.losses = losses
    one.say("last")
    await_that(lambda: not engine.losses)
    one.relay.commands.beat_soon()  # the sign of life that would come within seconds
    other.inbox.expect(lambda: other.inbox.missed == [("host:1", 1)])
    assert other.inbox.delivered == ["first"]


def test_a_change_while_the_member_is_described_is_shown_soon() -> None:
    """The next sign of life would come after 20 minutes."""
    engine, is_first, is_shown = LocalEngine("shop", lease=3600), threading.Event(), threading.Event()

    def describe() -> Member:
        if is_first.is_set():
            is_shown.set()
        else:
            is_first.set()
            relay.commands.beat_soon()
        return Member(relay.id, "host", 1, "", "STARTED")

    relay = Relay(engine, KEYS, lambda own: Sender("shop", "host", 1, own), describe, Inbox(), RelayState())
    relay.start()
    try:
        assert is_shown.wait(DEADLINE)
    finally:
        relay.close(5)
