"""A deploy: one host of the fleet after another, as the site that coordinates it sees it.

The coordinator sends an order again and again, and each time the member answers with its last step, or with
the outcome: no message has to arrive.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .base import Member
from .envelope import Message
from .relay import LEAVE, Relay
from .turn import Turn

ORDER, STEP, OUTCOME = "order", "step", "outcome"
"""Kinds of messages to one member: to a host of the deploy, and its answers."""

LONGEST_INTERVAL = 1.0
"""Seconds between two messages with an order to one member, at most."""

LOOK_INTERVAL = 0.1
"""Seconds between two looks whether the deploy has to stop."""


class Stopped(Exception):
    """The deploy has stopped before its end. The text says why, and which hosts it has reached."""


@dataclass(frozen=True, slots=True)
class Order:
    """The order to a host: an action of the control socket. ``token``: that of the deploy's lease."""

    action: str
    arguments: dict[str, Any]
    token: int

    def as_args(self) -> list[Any]:
        return [self.action, self.arguments, self.token]


@dataclass(slots=True)
class Part:
    """The part of a deploy that is done on one host. Times are of `time.monotonic`."""

    name: str
    member: Member
    order: Order
    sent: float
    heard: float
    has_answered: bool = False
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``parallel``: the number of hosts at a time; ``skips_silent``: a host that does not answer is no error.

    ``silence``: seconds for which a host may be silent, as while its site starts again.
    """

    parallel: int
    skips_silent: bool
    silence: float


@dataclass(slots=True)
class Progress:
    """The names of the hosts by what has become of them."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """The reasons why it stops."""


class Deploy:
    """Orders an action on hosts.

    ``show(text)`` shows a step; ``why_to_stop()`` returns why no further host is to get the order, or "".
    """

    def __init__(
        self,
        relay: Relay,
        turn: Turn,
        limits: Limits,
        show: Callable[[str], None],
        why_to_stop: Callable[[], str],
    ) -> None:
        self.id = secrets.token_hex(8)
        self.progress = Progress()
        self._relay = relay
        self._turn = turn
        self._limits = limits
        self._show = show
        self._why_to_stop = why_to_stop
        self._interval = min(relay.engine.lease / 5, LONGEST_INTERVAL)
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._parts: dict[str, Part] = {}
        """Identifier of a member -> its part, while it is under way."""

    def hear(self, message: Message) -> None:
        """Take a message of a member, in the thread that receives."""
        self._messages.put(message)

    def run(
        self, hosts: Iterable[tuple[str, Member]], action: str, arguments: dict[str, Any], last: str
    ) -> None:
        """Deploy to hosts, each a name and a member, in this order; `Stopped` at the first refusal.

        ``last``: the name of the host of this site, which the caller deploys to after all others.
        """
        waiting, failures = deque(hosts), self.progress.failures
        while True:
            self._look_for_reasons()
            while waiting and not failures and len(self._parts) < self._limits.parallel:
                name, member = waiting.popleft()
                self._begin(name, member, Order(action, arguments, self._turn.lease.token))
            if not self._parts or (failures and not self._turn.is_held):
                break
            self._attend()
        if failures:
            raise Stopped(self._why([*(name for name, _ in waiting), last]))

    def _look_for_reasons(self) -> None:
        if not self.progress.failures:
            if reason := self._why_to_stop():
                self.progress.failures.append(reason)
            elif not self._turn.is_held:
                reason = "this site is not sure any more that there is no other deploy."
                self.progress.failures.append(
                    f"The deploy stops: {reason} {self._relay.trouble or ''}".strip()
                )

    def _why(self, not_begun: list[str]) -> str:
        groups = {
            "Done": self.progress.done,
            "Skipped": self.progress.skipped,
            "Still under way": [part.name for part in self._parts.values()],
            "Not begun": not_begun,
        }
        summary = " ".join(f"{words}: {', '.join(names)}." for words, names in groups.items() if names)
        return "\n".join([*self.progress.failures, summary])

    # The part of one host

    def _begin(self, name: str, member: Member, order: Order) -> None:
        now = time.monotonic()
        self._parts[member.id] = Part(name, member, order, now, now)
        self._send(self._parts[member.id])

    def _send(self, part: Part) -> None:
        part.sent = time.monotonic()
        self._relay.send(part.member.id, ORDER, part.order.as_args(), self.id)

    def _attend(self) -> None:
        """Wait a moment for a message, and look after all parts."""
        try:
            message = self._messages.get(timeout=LOOK_INTERVAL)
        except queue.Empty:
            pass
        else:
            if (part := self._parts.get(message.epoch)) is not None:
                self._note(part, message)
        now = time.monotonic()
        for part in list(self._parts.values()):
            if now - part.heard > self._limits.silence:
                self._give_up(part)
            elif now - part.sent > self._interval:
                self._send(part)

    def _note(self, part: Part, message: Message) -> None:
        part.heard, part.has_answered = time.monotonic(), True
        if message.kind == LEAVE:
            self._fail(part, "it has left the fleet before the end: its site has stopped.")
        elif message.kind == STEP:
            (text,) = message.args
            if text != part.step:
                part.step = text
                self._show(f"{part.name}: {text}")
        else:
            succeeded, text = message.args
            if not succeeded:
                self._fail(part, text)
                return
            del self._parts[part.member.id]
            self.progress.done.append(part.name)
            self._show(f"{part.name}: {text}")

    def _give_up(self, part: Part) -> None:
        seconds = f"{self._limits.silence:g} s"
        if part.has_answered:
            self._fail(part, f"it has not answered any more for {seconds}.")
        elif self._limits.skips_silent:
            del self._parts[part.member.id]
            self.progress.skipped.append(part.name)
            self._show(f"{part.name}: skipped, as it has not answered for {seconds}")
        else:
            self._fail(part, f"it has not answered for {seconds}. With --skip-missing the others go on.")

    def _fail(self, part: Part, reason: str) -> None:
        del self._parts[part.member.id]
        self.progress.failures.append(f"{part.name}: {reason}")
