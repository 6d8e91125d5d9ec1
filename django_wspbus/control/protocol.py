"""The messages of the control socket: those of `process.exchange`, each a line of JSON of a bounded length.

A client sends one request. After the last reply the server closes the connection.
"""

from __future__ import annotations

import json
from typing import Any

from ..process.exchange import FAILED as FAILED
from ..process.exchange import MISUSED as MISUSED
from ..process.exchange import MOST_RECORDS as MOST_RECORDS
from ..process.exchange import Entry as Entry
from ..process.exchange import Error as Error
from ..process.exchange import Malformed as Malformed
from ..process.exchange import Reply as Reply
from ..process.exchange import Request as Request
from ..process.exchange import Result as Result
from ..process.exchange import Step as Step
from ..process.exchange import read_reply, read_request, reply_as_message, request_as_message

LARGEST_REQUEST = 2**16
"""Bytes of the longest request."""

LARGEST_REPLY = 2**24
"""Bytes of the longest reply."""


def encode_request(request: Request) -> bytes:
    """Return the line of a request; ValueError if it is too long, TypeError if JSON has no such type."""
    return _line(request_as_message(request), LARGEST_REQUEST, "request")


def decode_request(line: bytes) -> Request:
    """Return the request of a line; `Malformed` if it is none, or one of another version."""
    return read_request(_decode(line, LARGEST_REQUEST, "request"))


def encode_reply(reply: Reply) -> bytes:
    """Return the line of a reply; ValueError if it is too long, TypeError if JSON has no such type."""
    return _line(reply_as_message(reply), LARGEST_REPLY, "reply")


def decode_reply(line: bytes) -> Reply:
    """Return the reply of a line; `Malformed` if it is none."""
    return read_reply(_decode(line, LARGEST_REPLY, "reply"))


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
