"""Requests to the error page: the head, and the kind of answer that the client prefers."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_HEAD = 65536
"""Bytes of the longest head: the first line and the headers."""

FIRST_LINE = re.compile(r"([!#$%&'*+.^_`|~\w-]+) (\S+) HTTP/1\.\d", re.ASCII)
URL = re.compile(r"https?://([^/?#]+)(/[!-~]*)?", re.ASCII | re.IGNORECASE)
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
# No first line has such bytes. A TLS client sends them, and no end of a line.
CONTROL = re.compile(rb"[^\r\n]*?[\0-\x08\x0b\x0c\x0e-\x1f]")


class Malformed(Exception):
    """The bytes are no request in HTTP/1."""


@dataclass(slots=True)
class Request:
    """The head of a request; names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    def has_body(self, body: bytes | bytearray) -> bool:
        """Return whether ``body``, the bytes after the head, is whole."""
        if self.headers.get("expect", "").lower() == "100-continue":
            return True  # a final answer makes the client keep the body
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return body.endswith(b"\r\n0\r\n\r\n") or body == b"0\r\n\r\n"
        return len(body) >= int(self.headers.get("content-length", "0"))

    @property
    def netloc(self) -> str:
        """The Host header. Several ones are joined by a comma, which makes no valid host."""
        return self.headers.get("host", "").lower()

    def is_of_own_page(self) -> bool:
        """Return whether a page of this site sends the request, or a client that is no browser."""
        origin = self.headers.get("origin")
        match = URL.fullmatch(origin or "")
        is_own = origin is None or (match is not None and match[1].lower() == self.netloc and not match[2])
        return is_own and self.headers.get("sec-fetch-site", "none") in ("same-origin", "none")

    def page(self) -> str:
        """Return the path of the page of this site in the Referer header; ``/`` if there is none."""
        match = URL.fullmatch(self.headers.get("referer", ""))
        path = match[2] if match and match[1].lower() == self.netloc else None
        # In a browser, two slashes or backslashes begin the name of another host.
        return path if path and not path.startswith("//") and "\\" not in path else "/"

    def preferred(self) -> str:
        """Return the kind of the answer: ``html``, ``json`` or ``text``.

        Clients that name no kind get text: with ``*/*`` they are a terminal, or a script.
        """
        best, chosen = 0.0, ""
        for name, weight in _weights(self.headers.get("accept", "")):
            if (kind := _kind(name)) and weight > best:  # the first of equal weights wins
                best, chosen = weight, kind
        return chosen or _kind(self.headers.get("content-type", ""), only="json") or "text"


def parse(data: bytes | bytearray) -> tuple[Request, int] | None:
    """Return the request at the beginning of ``data`` and the length of its head; None if it is not whole.

    Raises `Malformed` as soon as the bytes cannot become a request.
    """
    start = len(data) - len(data.lstrip(b"\r\n"))
    end = BLANK_LINE.search(data, start)
    if CONTROL.match(data, start) or (end.start() if end else len(data)) > LONGEST_HEAD:
        raise Malformed
    line, newline, _ = bytes(data[start : end.start() if end else None]).decode("latin-1").partition("\n")
    match = FIRST_LINE.fullmatch(line.rstrip("\r"))
    if match is None and (newline or end):
        raise Malformed
    if match is None or end is None:
        return None
    request = Request(match[1], match[2], _headers(bytes(data[start : end.start()]).decode("latin-1")))
    return request, end.end()


def _headers(head: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.split("\n")[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if not re.fullmatch(r"[0-9]{1,18}", headers.get("content-length", "0")):
        raise Malformed
    return headers


def _weights(accept: str) -> list[tuple[str, float]]:
    weights = []
    for part in accept.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        found = [match[1] for each in parameters if (match := re.fullmatch(r"q *= *([01](\.[0-9]*)?)", each))]
        weights.append((name, float(found[0]) if found else 1.0))
    return weights


def _kind(name: str, only: str = "") -> str:
    """Return the kind of a media type; "" if it has none, or another kind than ``only``."""
    name = name.partition(";")[0].strip().lower()
    kind = {"text/html": "html", "application/xhtml+xml": "html", "text/plain": "text"}.get(name, "")
    if name == "application/json" or name.endswith("+json"):
        kind = "json"
    return kind if not only or kind == only else ""
