"""The senders of messages: which of their messages have arrived, and which are missing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from .envelope import Message, Rejected

MOST_SKEW = 60.0
"""Seconds by which a message may be older, or newer, than the time of the engine."""

NONCE_REMEMBERED = 2 * MOST_SKEW + 5
"""Seconds for which a message without a number is remembered: longer than it is accepted."""

SENDER_REMEMBERED = 24 * 3600.0
"""Seconds for which a sender is remembered that sends nothing; then a gap at its end is not noticed."""

MOST_HANDED_OVER = 10_000
"""Messages without a number that the next program of a process knows, at most."""


@dataclass(slots=True)
class Sequence:
    """The last number of a sender, and the time of `time.monotonic` at which it was seen."""

    last: int
    seen: float


class Senders:
    """Finds replayed messages, and gaps, by the sequence numbers of each sender.

    ``known`` and ``nonces``: those that an earlier program of this process has handed over.
    """

    def __init__(self, known: Mapping[str, int], nonces: Mapping[str, float]) -> None:
        now = time.monotonic()
        self._sequences = {epoch: Sequence(last, now) for epoch, last in known.items()}
        self._nonces = dict(nonces)
        self._swept = 0.0

    @property
    def known(self) -> dict[str, int]:
        """The last number of each sender."""
        return {epoch: each.last for epoch, each in list(self._sequences.items())}

    @property
    def nonces(self) -> dict[str, float]:
        """The nonces of the latest messages without a number -> the time of the engine at which each came."""
        latest = list(self._nonces.items())[-MOST_HANDED_OVER:]
        newest = max((seen for _, seen in latest), default=0.0)
        return {nonce: seen for nonce, seen in latest if newest - seen < NONCE_REMEMBERED}

    def check(self, message: Message, now: float) -> int:
        """Note a message; return how many before it are missing. `Rejected` if it must not be delivered.

        ``now``: the time of the engine, in seconds.
        """
        if message.time > now + MOST_SKEW:
            raise Rejected("future")
        if message.time < now - MOST_SKEW:
            raise Rejected("old")
        self._sweep(now)
        if message.number:
            missing = self.note(message.epoch, message.number, is_new=True)
            if missing is None:
                raise Rejected("replayed")
            return missing
        if not message.nonce or message.nonce in self._nonces:
            raise Rejected("replayed")
        self._nonces[message.nonce] = now
        return 0

    def note(self, epoch: str, number: int, *, is_new: bool) -> int | None:
        """Note a number of a sender; return how many messages up to it are missing; None if it is replayed.

        ``is_new``: whether a message of this number has come, or only the announcement that there was one.
        """
        sequence, now = self._sequences.get(epoch), time.monotonic()
        if sequence is None:
            self._sequences[epoch] = Sequence(number, now)
            return 0
        sequence.seen = now
        missing = number - sequence.last - is_new
        if missing < 0:
            return None if is_new else 0
        sequence.last = number
        return missing

    def _sweep(self, now: float) -> None:
        """Forget what is older than any message that is accepted."""
        here = time.monotonic()  # the clock of the engine may jump, and no sender is to be forgotten then
        if here - self._swept < MOST_SKEW:
            return
        self._swept = here
        self._sequences = {
            epoch: each for epoch, each in self._sequences.items() if here - each.seen < SENDER_REMEMBERED
        }
        self._nonces = {nonce: seen for nonce, seen in self._nonces.items() if now - seen < NONCE_REMEMBERED}
