"""The senders of messages, and what of their sequences has arrived."""

from __future__ import annotations

from dataclasses import dataclass

REMEMBERED = 120.0
"""Seconds for which a sender is remembered after its last message: longer than a message is accepted."""


@dataclass(slots=True)
class Sender:
    last: int
    seen: float


class Senders:
    """Finds replayed messages, and gaps, by the sequence numbers of each sender."""

    def __init__(self) -> None:
        self._senders: dict[str, Sender] = {}

    def note(self, epoch: str, number: int, now: float, *, is_message: bool = True) -> int | None:
        """Note a number of a sender; return how many messages before it are missing; None if it is replayed.

        ``is_message``: False for a sign of life, which repeats the number of the last message.
        """
        sender = self._senders.get(epoch)
        if sender is None:
            self._forget(now)
            self._senders[epoch] = Sender(number, now)
            return 0
        sender.seen = now
        missing = number - sender.last - is_message
        if missing < 0:
            return None if is_message else 0
        sender.last = number
        return missing

    def _forget(self, now: float) -> None:
        self._senders = {epoch: each for epoch, each in self._senders.items() if now - each.seen < REMEMBERED}
