"""A message of a fleet as it travels: who sent it, when, and the signature."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = b"1"
MOST_SKEW = 60.0
"""Seconds by which a message may be older, or newer, than the time of the engine."""


class Rejected(Exception):
    """The message is not to be delivered. ``reason``: one of those that the status counts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Message:
    fleet: str
    kind: str
    """"message", "ask", "beat", "leave", "released"; to one member: "expect", "reply", "gone", "order", "step", "result"."""
    host: str
    pid: int
    """The PID of the process that sent it."""
    epoch: str
    """The identifier of the member that sent it."""
    number: int
    """Its number in the sequence of the member; 0: a message to one member, or one of a transaction."""
    time: float
    """The time of the engine at which it was sent."""
    id: str = ""
    """The identifier of an ask or an order; for messages without a number, a random one."""
    channel: str = ""
    args: list[Any] = field(default_factory=list)


NAMES = {
    "fleet": "f",
    "kind": "k",
    "host": "h",
    "pid": "p",
    "epoch": "e",
    "number": "n",
    "time": "t",
    "id": "i",
    "channel": "c",
    "args": "a",
}


@dataclass(frozen=True, slots=True)
class Key:
    secret: bytes
    id: bytes

    @classmethod
    def derive(cls, secret_key: str, fleet: str) -> Key:
        secret = hmac.digest(secret_key.encode(), b"django_wspbus.fleet:" + fleet.encode(), "sha256")
        return cls(secret, hashlib.sha256(secret).hexdigest()[:8].encode())


class Signer:
    """Signs with the first key, and accepts what any of them has signed."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._key = keys[0]
        self._keys = {key.id: key for key in keys}

    def sign(self, message: Message) -> bytes:
        values = {NAMES[name]: value for name, value in asdict(message).items() if value not in ("", [])}
        text = json.dumps(values, separators=(",", ":"), allow_nan=False).encode()
        return b" ".join([VERSION, self._key.id, _signature(self._key, text), text])

    def read(self, data: bytes, fleet: str) -> Message:
        try:
            version, key_id, signature, text = data.split(b" ", 3)
        except ValueError:
            raise Rejected("unsigned") from None
        if version != VERSION:
            raise Rejected("version")
        key = self._keys.get(key_id)
        if key is None:
            raise Rejected("key")
        if not hmac.compare_digest(signature, _signature(key, text)):
            raise Rejected("unsigned")
        values = json.loads(text)
        message = Message(**{name: values[short] for name, short in NAMES.items() if short in values})
        if message.fleet != fleet:
            raise Rejected("foreign")
        return message


def _signature(key: Key, text: bytes) -> bytes:
    return hmac.digest(key.secret, text, "sha256").hex().encode()
