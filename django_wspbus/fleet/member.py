"""A member of a fleet: a site, or a process that another program serves. Without FLEET it is alone."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .. import conf
from ..conf import FleetSettings
from ..process.fleet import GAP, Fleet, Reply
from ..process.inbox import Delivery, Inbox
from ..process.process_bus import ProcessBus
from ..process.publication import Outcome, Publication
from ..process.worker_orders import Deliver, Publish
from .asks import EXPECT, GONE, REPLY, Answers, Question, fitting
from .base import Engine, Member, MemberProcess, Unavailable
from .commands import Commands, LocalCommands
from .engines import make_engine
from .envelope import Message, Sender
from .processes import Processes, Spreading
from .relay import LEAVE, Relay, RelayState
from .transaction import send_in_transaction

ASK = "ask"
"""The kind of a message that asks all processes."""

Handler = Callable[[Message], None]
"""A function that gets the messages of one kind, in the thread that receives: it must not wait."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The facts about a member that do not change while it lives."""

    version: str = ""
    """The version of the code of this process."""
    directory: str = ""
    """The directory in which it was started, by the path that was typed."""
    is_listed: bool = True
    """False for a process that only sends and asks, such as a management command."""
    state: RelayState = field(default_factory=RelayState)
    """The state that an earlier program of this process has handed over."""


class FleetMember(Fleet):
    """This process as a member of the fleet, together with its other processes.

    ``settings``: None without FLEET.
    """

    def __init__(
        self,
        bus: ProcessBus,
        settings: FleetSettings | None,
        processes: Processes,
        identity: Identity,
    ) -> None:
        engine = make_engine(settings)
        self.bus = bus
        self.settings = settings
        self.host = socket.gethostname()
        self.pid = os.getpid()
        self.identity = identity
        self.largest = engine.largest
        self.inbox = Inbox(bus)
        self.is_leading: Callable[[], bool] = lambda: False
        """Returns True if one of its processes leads the fleet."""
        self.version: Callable[[], str] = lambda: identity.version
        """Returns the version of the code that serves."""
        self.handlers: dict[str, list[Handler]] = {
            ASK: [self._answer],
            EXPECT: [self._note_expected],
            REPLY: [self._note_reply],
            GONE: [self._note_gone],
            LEAVE: [self._note_left],
        }
        """Kind of message -> the functions that get it."""
        self.missed = 0
        """Messages of other members that did not arrive."""
        self._processes = processes
        self._spreading = Spreading(processes)
        self._answers = Answers(self._serving, self._order)
        self._questions: dict[str, Question] = {}
        self._turn = threading.RLock()
        self.relay = None if settings is None else self._make_relay(engine)
        self.commands: Commands = LocalCommands(engine) if self.relay is None else self.relay.commands

    def _make_relay(self, engine: Engine) -> Relay:
        def sender(id: str) -> Sender:  # noqa: A002
            return Sender(engine.name, self.host, self.pid, id)

        describe = self.describe if self.identity.is_listed else lambda: None
        return Relay(engine, conf.secret_keys(), sender, describe, self, self.identity.state)

    # Its life

    def start(self, *, listens: bool = True) -> None:
        """Connect with the engine, without waiting for it."""
        if self.relay is not None:
            self.relay.start(listens=listens)

    def take_part(self) -> None:
        """Become the fleet of the bus of this process, but not of a process that it forks."""
        before, self.bus.fleet = self.bus.fleet, self

        def restore() -> None:
            if self.bus.fleet is self:
                self.bus.fleet = before

        os.register_at_fork(after_in_child=restore)

    def listen(self) -> None:
        """Listen from now on, in a process that has only sent so far."""
        if self.relay is not None:
            self.relay.listen()

    def close(self, timeout: float, *, leaves: bool = True) -> None:
        """Send what waits, and leave the fleet unless the next program of this process goes on."""
        if self.relay is not None:
            self.relay.close(timeout, leaves=leaves)

    def announce(self) -> None:
        """Show the other members soon what has changed in this one."""
        if self.relay is not None:
            self.relay.commands.beat_soon()

    def describe(self) -> Member:
        """Return the member as it is now."""
        return Member(
            id=self.identity.state.id,
            host=self.host,
            pid=self.pid,
            version=self.version(),
            directory=self.identity.directory,
            state=self.bus.state.name,
            processes=self._serving(),
            leads=self.is_leading(),
            key="" if self.relay is None else self.relay.signer.key,
        )

    def status(self) -> dict[str, Any] | None:
        """Return the state of the connection and the number of lost messages; None without FLEET."""
        if self.relay is None or self.settings is None:
            return None
        both = (self.relay.commands.connection, self.relay.messages.connection)
        down = [each for each in both if not each.is_up]
        now = time.monotonic()
        return {
            "name": self.settings.name,
            "engine": self.settings.backend,
            "up": not down,
            "since": now - max(each.since for each in (down or both)),
            "error": self.relay.trouble,
            "waiting": self.relay.commands.waiting,
            "unsent": self.relay.commands.dropped,
            "missed": self.missed,
            "rejected": dict(self.relay.messages.rejected),
        }

    # Messages to all

    @property
    def has_engine(self) -> bool:
        return self.settings is not None

    def broadcast_in_transaction(self, channel: str, args: list[Any], using: str | None) -> None:
        if self.settings is None:
            super().broadcast_in_transaction(channel, args, using)
        else:
            send_in_transaction(self.settings, channel, args, using)

    def broadcast(self, channel: str, args: list[Any]) -> None:
        with self._turn:
            size = self._spread(f"{self.host}:{self.pid}", channel, args)
            self._spreading.flush()
            if self.relay is not None:
                self.relay.publish("message", channel, args, size)

    def skip(self, count: int) -> None:
        """Note that messages of a process of this member were lost before they reached this one."""
        sender = f"{self.host}:{self.pid}"
        with self._turn:
            self.miss(sender, count)
            self._spreading.flush()
            if self.relay is not None:
                self.relay.skip(count)

    def _spread(self, sender: str, channel: str, args: list[Any]) -> int:
        """Deliver a message to all processes of this member; return its size."""
        self.inbox.put(Delivery(sender, channel, args))
        return self._spreading.put(Deliver(sender, channel, args))

    # Asks

    def ask(self, channel: str, args: list[Any], timeout: float) -> list[Reply]:
        until, trouble = time.monotonic() + timeout, None
        members = [self.describe()] if self.identity.is_listed else []
        if self.relay is not None:
            try:
                members += self._others(self.relay, timeout)
            except Unavailable as error:
                trouble = f"The other members cannot be asked. {error}"
        subject, question = secrets.token_hex(8), Question(members)
        self._questions[subject] = question
        try:
            if self.identity.is_listed:
                self._answers.begin(channel, args, timeout, _Here(question, members[0]))
            if self.relay is not None and trouble is None:
                self.relay.publish(ASK, channel, [args, timeout], len(json.dumps(args)), subject)
            return question.result(until, timeout, trouble)
        finally:
            del self._questions[subject]

    def _others(self, relay: Relay, timeout: float) -> list[Member]:
        """Return the other members that live; `Unavailable` if that takes longer than half of the timeout."""
        until = time.monotonic() + timeout / 2
        if not relay.messages.has_listened.wait(timeout / 2) and (trouble := relay.trouble) is not None:
            raise Unavailable(trouble)
        members = relay.commands.call(lambda engine: engine.members(), until - time.monotonic())
        oldest = relay.clock.now() - relay.engine.lease
        return [each for each in members if each.seen >= oldest and each.id != relay.id]

    def note_reply(self, number: int, pid: int, outcome: Outcome) -> None:
        """Note the answer of a process of this member."""
        self._answers.note_reply(number, pid, outcome)

    def note_end(self, pid: int) -> None:
        """Note that a process of this member has ended."""
        self._answers.note_end(pid)

    def _serving(self) -> list[MemberProcess]:
        return [MemberProcess(self.pid, sorted(self.bus.roles or ())), *self._processes.serving()]

    def _order(self, pid: int, number: int, channel: str, args: list[Any]) -> bool:
        if pid != self.pid:
            return self._processes.order(pid, Publish(number, channel, args))
        Publication(self.bus, channel, args).begin(partial(self.note_reply, number, pid))
        return True

    # The receiver of the relay

    def deliver(self, message: Message) -> None:
        with self._turn:
            self._spread(message.sender, message.channel, message.args)

    def miss(self, sender: str, count: int) -> None:
        with self._turn:
            self.missed += count
            self.inbox.note_missed(sender, count)
            self._spreading.put(Deliver(sender, GAP, [sender, count]), count)

    def flush(self) -> None:
        with self._turn:
            self._spreading.flush()

    def hear(self, message: Message) -> None:
        for handler in self.handlers.get(message.kind, ()):
            handler(message)

    def _answer(self, message: Message) -> None:
        if self.identity.is_listed and self.relay is not None:
            args, timeout = message.args
            sink = _There(self.relay, message.epoch, message.subject)
            self._answers.begin(message.channel, args, timeout, sink)

    def _note_expected(self, message: Message) -> None:
        if (question := self._questions.get(message.subject)) is not None:
            processes = [MemberProcess(pid, roles) for pid, roles in message.args]
            question.expect(message.epoch, message.host, processes)

    def _note_reply(self, message: Message) -> None:
        if (question := self._questions.get(message.subject)) is not None:
            pid, results, error = message.args
            question.note_reply(message.epoch, pid, results, error)

    def _note_gone(self, message: Message) -> None:
        if (question := self._questions.get(message.subject)) is not None:
            question.note_end(message.epoch, message.args[0])

    def _note_left(self, message: Message) -> None:
        for question in list(self._questions.values()):
            question.note_leave(message.epoch)


class _Here:
    """The way of the answers of this member to its own question."""

    def __init__(self, question: Question, member: Member) -> None:
        self._question = question
        self._member = member

    def expect(self, processes: list[MemberProcess]) -> None:
        self._question.expect(self._member.id, self._member.host, processes)

    def reply(self, pid: int, outcome: Outcome) -> None:
        self._question.note_reply(self._member.id, pid, outcome.results, outcome.error)

    def gone(self, pid: int) -> None:
        self._question.note_end(self._member.id, pid)


class _There:
    """The way of the answers of this member to the question of another."""

    def __init__(self, relay: Relay, member: str, subject: str) -> None:
        self._relay = relay
        self._member = member
        self._subject = subject

    def expect(self, processes: list[MemberProcess]) -> None:
        self._send(EXPECT, [[each.pid, each.roles] for each in processes])

    def reply(self, pid: int, outcome: Outcome) -> None:
        sent = fitting(outcome, self._relay.engine.largest)
        self._send(REPLY, [pid, sent.results, sent.error])

    def gone(self, pid: int) -> None:
        self._send(GONE, [pid])

    def _send(self, kind: str, args: list[Any]) -> None:
        self._relay.send(self._member, kind, args, self._subject)
