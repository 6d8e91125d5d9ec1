"""A message of a fleet as it travels: its sender, its time, and the signature."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

VERSION = b"1"


class Rejected(Exception):
    """The message must not be delivered.

    ``reason``: one of those of `system.rejections`; ``sender``: "host:pid", if the signature is valid.
    """

    def __init__(self, reason: str, sender: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.sender = sender


@dataclass(frozen=True, slots=True)
class Draft:
    """A message before it is sent."""

    kind: str
    """To all: "message", "ask", "beat", "leave", and others with a number. To one member: any with 0 as its
    number."""
    channel: str = ""
    args: list[Any] = field(default_factory=list)
    number: int = 0
    """Its number in the sequence of the member; 0: a message to one member, or one of a transaction."""
    subject: str = ""
    """The identifier of the ask, or of the order, that it belongs to."""
    target: str | None = None
    """The identifier of the member that gets it; None: all."""
    nonce: str = ""
    """A random text that tells messages without a number apart."""

    @classmethod
    def to(
        cls, target: str | None, kind: str, args: list[Any], subject: str = "", channel: str = ""
    ) -> Draft:
        """Make a message without a number."""
        return cls(kind, channel, args, 0, subject, target, secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class Message:
    """A message that has arrived."""

    fleet: str
    kind: str
    host: str
    pid: int
    """The PID of the member: of a site process, or of a process that another program serves."""
    epoch: str
    """The identifier of the member; a member that starts again has another one."""
    number: int
    time: float
    """The time of the engine at which it was sent."""
    subject: str
    nonce: str
    target: str
    """The identifier of the only member that may take it; "": all may."""
    channel: str
    args: list[Any]

    @property
    def sender(self) -> str:
        return f"{self.host}:{self.pid}"


@dataclass(frozen=True, slots=True)
class Sender:
    """The member that signs messages."""

    fleet: str
    host: str
    pid: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Key:
    secret: bytes
    id: bytes
    """The beginning of its digest, which every message shows."""

    @classmethod
    def derive(cls, secret_key: str, fleet: str) -> Key:
        secret = hmac.digest(secret_key.encode(), b"django_wspbus.fleet:" + fleet.encode(), "sha256")
        return cls(secret, hashlib.sha256(secret).hexdigest()[:8].encode())

    def sign(self, text: bytes) -> bytes:
        return hmac.digest(self.secret, text, "sha256").hex().encode()


class Signer:
    """Signs with the first key, and accepts the signature of any of them."""

    def __init__(self, secret_keys: Sequence[str], fleet: str) -> None:
        self.fleet = fleet
        keys = [Key.derive(each, fleet) for each in secret_keys]
        self._key = keys[0]
        self._keys = {key.id: key for key in keys}

    @property
    def key(self) -> str:
        """The identifier of the key that signs."""
        return self._key.id.decode()

    def accepts(self, key: str) -> bool:
        """Return whether messages that are signed with a key are accepted; ``key``: its identifier."""
        return key.encode() in self._keys

    def sign(self, draft: Draft, sender: Sender, time: float) -> bytes:
        """Return the bytes of a message."""
        values: dict[str, Any] = {
            "f": sender.fleet,
            "k": draft.kind,
            "h": sender.host,
            "p": sender.pid,
            "e": sender.epoch,
            "n": draft.number,
            "t": round(time, 6),
            "i": draft.subject,
            "u": draft.nonce,
            "o": draft.target or "",
            "c": draft.channel,
            "a": draft.args,
        }
        values = {name: value for name, value in values.items() if value not in ("", [])}
        text = json.dumps(values, separators=(",", ":"), allow_nan=False).encode()
        return b" ".join([VERSION, self._key.id, self._key.sign(text), text])

    def read(self, data: bytes) -> Message:
        """Return the message in bytes; `Rejected` if no member of this fleet has signed them."""
        try:
            version, key_id, signature, text = data.split(b" ", 3)
        except ValueError:
            raise Rejected("unsigned") from None
        if version != VERSION:
            raise Rejected("version" if version.isdigit() else "unsigned")
        key = self._keys.get(key_id)
        if key is None:
            raise Rejected("key")
        if not hmac.compare_digest(signature, key.sign(text)):
            raise Rejected("unsigned")
        message = _decode(text)
        if message.fleet != self.fleet:
            raise Rejected("foreign", message.sender)
        return message


def _decode(text: bytes) -> Message:
    values = json.loads(text)
    get = values.get
    return Message(
        fleet=get("f", ""),
        kind=get("k", ""),
        host=get("h", ""),
        pid=get("p", 0),
        epoch=get("e", ""),
        number=get("n", 0),
        time=get("t", 0.0),
        subject=get("i", ""),
        nonce=get("u", ""),
        target=get("o", ""),
        channel=get("c", ""),
        args=get("a", []),
    )
