"""The messages of the control socket: lines of JSON of a bounded length.

A client sends one request and reads replies: steps and records, then a result or an error, with which the
server closes the connection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

VERSION = 1
"""The version of the protocol. It stands in each request."""

LARGEST_REQUEST = 2**16
"""Bytes of the longest request."""

LARGEST_REPLY = 2**24
"""Bytes of the longest reply."""

FAILED, MISUSED = 1, 2
"""Exit statuses of the command: the action failed; the request is wrong."""


class Malformed(Exception):
    """The bytes are no message of this protocol. The text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """An action of the site, and its arguments by name."""

    action: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """A sentence about the progress of an action."""

    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One of many parts of an answer, such as a log record."""

    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of an action, as JSON has it. It is the last reply."""

    value: Any


@dataclass(frozen=True, slots=True)
class Error:
    """The reason why there is no result. It is the last reply. ``status``: the exit status of the command."""

    text: str
    status: int = FAILED


Reply = Step | Record | Result | Error


def encode_request(request: Request) -> bytes:
    """Return the line of a request; ValueError if it is too long, TypeError if JSON has no such type."""
    values = {"version": VERSION, "action": request.action, "arguments": request.arguments}
    return _line(values, LARGEST_REQUEST, "request")


def decode_request(line: bytes) -> Request:
    """Return the request of a line; `Malformed` if it is none, or one of another version."""
    values = _decode(line, LARGEST_REQUEST, "request")
    version = values.get("version")
    if version != VERSION:
        spoken = repr(version)[:40]
        raise Malformed(f"the request has the version {spoken}, and this site knows version {VERSION}")
    action, arguments = values.get("action"), values.get("arguments", {})
    if not isinstance(action, str):
        raise Malformed("the request names no action")
    if not isinstance(arguments, dict):
        raise Malformed("the arguments of the request are no object")
    return Request(action, arguments)


def encode_reply(reply: Reply) -> bytes:
    """Return the line of a reply; ValueError if it is too long, TypeError if JSON has no such type."""
    match reply:
        case Step(text):
            values: dict[str, Any] = {"step": text}
        case Record(record):
            values = {"record": record}
        case Result(value):
            values = {"result": value}
        case Error(text, status):
            values = {"error": text, "status": status}
    return _line(values, LARGEST_REPLY, "reply")


def decode_reply(line: bytes) -> Reply:
    """Return the reply of a line; `Malformed` if it is none."""
    values = _decode(line, LARGEST_REPLY, "reply")
    match values:
        case {"step": str(text)}:
            return Step(text)
        case {"record": dict(record)}:
            return Record(record)
        case {"result": value}:
            return Result(value)
        case {"error": str(text)}:
            status = values.get("status")
            return Error(text, status if isinstance(status, int) else FAILED)
    raise Malformed("the reply is neither a step nor a record, a result or an error")


def _line(values: dict[str, Any], largest: int, kind: str) -> bytes:
    line = json.dumps(values).encode() + b"\n"
    if len(line) > largest:
        raise ValueError(f"a {kind} has at most {largest:,} bytes, and this one has {len(line):,}")
    return line


def _decode(line: bytes, largest: int, kind: str) -> dict[str, Any]:
    if len(line) > largest:
        raise Malformed(f"the {kind} has more than {largest:,} bytes")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the {kind} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise Malformed(f"the {kind} is no JSON object")
    return values
