"""The head of an HTTP/1.1 request, and the faults that leave its end, and so the next request, in doubt.

Python's own parser is one for mail: it takes a line without a colon for the end of the head, and a bare
carriage return for the end of a line. A proxy in front may see another request than it does (RFC 9112, 11.2).
"""

from __future__ import annotations

import re
from http import HTTPStatus

LONGEST_LINE = 65536
"""Bytes that a line of a head may have."""

MOST_LINES = 101
"""Fields that a head may have, and the empty line after them: as many as Python's parser takes."""

MOST_DIGITS = 18
"""Digits of a Content-Length: an exabyte, and fewer than Python refuses to convert."""

REQUEST_LINE = re.compile(rb"[^\x00-\x1f\x7f]+\r?\n")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\r?\n")

Fault = tuple[HTTPStatus, str]


def find_fault(request_line: bytes, lines: list[bytes]) -> Fault | None:
    """Return the status and the reason with which to refuse a request, None if its end is known.

    ``lines``: the fields as they were received, without the empty line after them.
    """
    if not REQUEST_LINE.fullmatch(request_line):
        return HTTPStatus.BAD_REQUEST, "Control character in the request line"
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        field = FIELD.fullmatch(line)
        if field is None:
            return HTTPStatus.BAD_REQUEST, "Bad header line"
        fields.append((field[1].lower(), field[2]))
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    return _fault_of_length(lengths) or (_fault_of_coding(codings, lengths) if codings else None)


def _fault_of_length(lengths: list[bytes]) -> Fault | None:
    if len(lengths) > 1:
        return HTTPStatus.BAD_REQUEST, "More than one Content-Length"
    for length in lengths:
        if not length.isdigit() or len(length) > MOST_DIGITS:
            return HTTPStatus.BAD_REQUEST, "Bad Content-Length"
    return None


def _fault_of_coding(codings: list[bytes], lengths: list[bytes]) -> Fault:
    if lengths:
        return HTTPStatus.BAD_REQUEST, "Both Transfer-Encoding and Content-Length"
    if codings != [b"chunked"]:
        return HTTPStatus.NOT_IMPLEMENTED, "Unknown Transfer-Encoding"
    # Django reads no body without its length, and so would answer as if there were none.
    return HTTPStatus.LENGTH_REQUIRED, "Chunked bodies are not taken: send a Content-Length"
