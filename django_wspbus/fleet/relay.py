"""The connection of a member with its fleet: two connections with the engine, each with a thread."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .base import Engine, Member
from .commands import Commands as Commands
from .connection import EngineClock
from .envelope import Draft, Message, Sender, Signer
from .outgoing import HEADER
from .receiving import PING, Receiver, Receiving
from .senders import Senders
from .sending import Sending

HELLO, BEAT, LEAVE = "hello", "beat", "leave"
"""Kinds of messages: a member listens, and wants to know the last number of each sender; the last number of a
member; a member leaves."""


@dataclass(frozen=True, slots=True)
class RelayState:
    """The state that the next program of a process goes on with, so that it notices what it has missed."""

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    """The identifier of the member."""
    number: int = 0
    """The number of its last message."""
    known: dict[str, int] = field(default_factory=dict)
    """The last number of each sender."""
    nonces: dict[str, float] = field(default_factory=dict)
    """The latest messages without a number: see `senders.Senders`."""


class Relay:
    """Sends and receives for one member.

    ``describe()`` returns the member as it is now; None to leave it out of the list. All methods may be
    called in any thread, and do not wait.
    """

    def __init__(
        self,
        engine: Engine,
        secret_keys: Sequence[str],
        sender: Callable[[str], Sender],
        describe: Callable[[], Member | None],
        receiver: Receiver,
        state: RelayState,
    ) -> None:
        self.id = state.id
        self.number = state.number
        self.turn = threading.RLock()
        """Held while a message gets its number, so that those of one member arrive in their order."""
        self.engine = engine
        self.signer = Signer(secret_keys, engine.name)
        self.clock = EngineClock()
        self._sender = sender(self.id)
        self._receiver = receiver
        self._senders = Senders(state.known, state.nonces)
        self.commands = Sending(engine, self.clock, self._sign, describe, self.announce)
        self.messages = Receiving(
            *(engine, self.clock, self.signer, self.id, _Hearer(self, receiver)),
            *(self._senders, self._say_hello, self.commands.connection),
        )
        self.commands.on_beat += [self._ping, self.messages.look]
        self._listens = False

    def start(self, *, listens: bool = True) -> None:
        """Connect; ``listens``: False for a process that only sends."""
        self.commands.start()
        if listens:
            self.listen()

    def listen(self) -> None:
        self._listens = True
        self.messages.start()

    def close(self, timeout: float, *, leaves: bool = True) -> None:
        """Send what waits, leave the fleet and close both connections."""
        deadline = time.monotonic() + timeout
        if leaves:
            self.commands.put(Draft.to(None, LEAVE, []))
        self.commands.close(timeout)
        if self._listens:
            self.messages.close(max(deadline - time.monotonic(), 0.1))

    @property
    def trouble(self) -> str | None:
        """The reason why a connection with the engine is down; None if both are up."""
        both = (self.commands.connection, self.messages.connection)
        return next((str(each.error) for each in both if not each.is_up), None)

    @property
    def state(self) -> RelayState:
        return RelayState(self.id, self.number, self._senders.known, self._senders.nonces)

    # Sending

    def publish(self, kind: str, channel: str, args: list[Any], size: int, subject: str = "") -> None:
        """Send a message to all members."""
        with self.turn:
            self.number += 1
            self.commands.put(Draft(kind, channel, args, self.number, subject), size)

    def skip(self, count: int) -> None:
        """Leave out some numbers: messages were lost before they reached this relay."""
        with self.turn:
            self.number += count
            self.announce()

    def announce(self, target: str | None = None) -> None:
        """Send the number of the last message, after all that wait, to a member or to all."""
        with self.turn:
            self.commands.put(Draft.to(target, BEAT, [self.number]))

    def send(
        self, target: str | None, kind: str, args: list[Any], subject: str = "", channel: str = ""
    ) -> None:
        """Send a message to one member, or one without a number to all (None)."""
        size = len(json.dumps(args)) + HEADER
        self.commands.put(Draft.to(target, kind, args, subject, channel), size)

    def _sign(self, draft: Draft) -> bytes:
        return self.signer.sign(draft, self._sender, self.clock.now())

    # The numbers of others, and ours

    def _say_hello(self) -> None:
        self.commands.put(Draft.to(None, HELLO, []))

    def _ping(self) -> None:
        # The first member that finds it quiet sends one to all. To oneself, each ping would wake all members
        # on PostgreSQL, so that the cost of each would grow with their number.
        if self.messages.silence > self.engine.lease / 6:
            self.commands.put(Draft.to(None, PING, []))

    def hear(self, message: Message) -> None:
        match message.kind:
            case "hello":
                if self.number:
                    self.announce(message.epoch)
            case "beat":
                missing = self.messages.note_number(message, int(message.args[0]))
                if missing:
                    self._receiver.miss(message.sender, missing)
            case _:
                self._receiver.hear(message)


class _Hearer:
    """Hears what is for the relay itself, before its owner hears the rest."""

    def __init__(self, relay: Relay, receiver: Receiver) -> None:
        self.deliver = receiver.deliver
        self.miss = receiver.miss
        self.flush = receiver.flush
        self.hear = relay.hear
