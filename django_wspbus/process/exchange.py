"""Requests to the site, and its replies, as `bus.site` and the control socket send them.

The sender of a request gets steps and records, and then a result or an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = 1
"""The version of the protocol. It stands in each request."""

MOST_RECORDS = 1000
"""Log records that the site sends a client at first, before those that are new."""

FAILED, MISUSED = 1, 2
"""Exit statuses of the command: the action failed; the request is wrong."""


class Malformed(Exception):
    """The message is none of this protocol. The text says why."""


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
class Entry:
    """One of many entries of an answer, such as a log record."""

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


Reply = Step | Entry | Result | Error


def request_as_message(request: Request) -> dict[str, Any]:
    return {"version": VERSION, "action": request.action, "arguments": request.arguments}


def read_request(message: Mapping[str, Any]) -> Request:
    """Return the request of a message; `Malformed` if it is none, or one of another version."""
    version = message.get("version")
    if version != VERSION:
        spoken = repr(version)[:40]
        raise Malformed(f"the request has the version {spoken}, and this site knows version {VERSION}")
    action, arguments = message.get("action"), message.get("arguments", {})
    if not isinstance(action, str):
        raise Malformed("the request names no action")
    if not isinstance(arguments, dict):
        raise Malformed("the arguments of the request are no object")
    return Request(action, arguments)


def reply_as_message(reply: Reply) -> dict[str, Any]:
    match reply:
        case Step(text):
            return {"step": text}
        case Entry(values):
            return {"record": values}
        case Result(value):
            return {"result": value}
        case Error(text, status):
            return {"error": text, "status": status}


def read_reply(message: Mapping[str, Any]) -> Reply:
    """Return the reply of a message; `Malformed` if it is none."""
    match message:
        case {"step": str(text)}:
            return Step(text)
        case {"record": dict(record)}:
            return Entry(record)
        case {"result": value}:
            return Result(value)
        case {"error": str(text)}:
            status = message.get("status")
            return Error(text, status if isinstance(status, int) else FAILED)
    raise Malformed("the reply is neither a step nor a record, a result or an error")
