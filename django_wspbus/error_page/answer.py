"""The answers of the error page, byte by byte."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from .request import Request

WAIT = "/__wspbus_wait__"
"""A request for this path is answered in full when the program ends."""

RETRY = "/__wspbus_retry__"
"""A POST to this path has the site started again: what is wrong may be elsewhere than in its files."""

HEADER = "X-Wspbus-Wait"
AGAIN = b"again\n"
"""What ends that answer when something has changed; nothing, if the program was stopped."""

CLOSED = "The site does not start at present; the reason is in its terminal."

TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
}
# The page is one piece, and what an error quotes is not to bring in more.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


@dataclass(slots=True)
class Report:
    """What is wrong, as the launcher has it; and whether clients may know."""

    title: str
    text: str
    is_public: bool
    root: str


class Answers:
    """Makes answers out of a report, and keeps them."""

    def __init__(self, report: Report, retry: Callable[[], None] = lambda: None) -> None:
        self._report = report
        self._retry = retry
        self._bodies: dict[tuple[str, bool], bytes] = {}
        # Those that wait for another program, of an earlier error, need not wait any longer.
        self._wait = f"{WAIT}?{os.getpid()}-{time.time_ns()}"

    def holds(self, request: Request) -> bool:
        """Whether the answer to this request stays open."""
        return request.target in (WAIT, self._wait) and request.method != "HEAD"

    def answer(self, request: Request | None, status: int) -> bytes:
        """Return an answer, of a held one the beginning; ``request`` is None if none could be read."""
        if request is None:
            return _answer(status, "text", f"{HTTPStatus(status).phrase}\n".encode())
        if request.target == RETRY:
            if request.method == "POST":
                self._retry()
            return _answer(303, "text", b"", request.method, [f"Location: {request.origin()}"])
        if request.target.partition("?")[0] == WAIT:
            body = b"" if self.holds(request) else AGAIN
            return _answer(200, "text", body, request.method, [f"{HEADER}: 1"], has_length=False)
        kind = request.preferred()
        key = kind, request.method == "GET"
        if key not in self._bodies:
            self._bodies[key] = self._body(*key).encode(errors="backslashreplace")
        more = [f"Content-Security-Policy: {POLICY}"] if kind == "html" else []
        return _answer(status, kind, self._bodies[key], request.method, more)

    def _body(self, kind: str, is_of_get: bool) -> str:
        report = self._report
        if kind == "json":
            public = {"error": report.title, "traceback": report.text}
            return json.dumps(public if report.is_public else {"error": CLOSED}) + "\n"
        if kind == "text":
            said = report.text.strip("\n")
            is_whole = report.title in said or "Traceback (most recent" in said
            said = said if is_whole else f"{report.title}\n\n{said}"
            return f"{said if report.is_public else CLOSED}\n"
        from . import html  # once a browser asks: it takes time to import

        script = html.renewal(self._wait, HEADER, is_of_get)
        if report.is_public:
            return html.page(report.title, report.text, report.root, script, RETRY)
        return html.closed_page(CLOSED, script)


def _answer(
    status: int,
    kind: str,
    body: bytes,
    method: str = "GET",
    more: list[str] | None = None,
    has_length: bool = True,
) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        f"Content-Type: {TYPES[kind]}",
        *([f"Content-Length: {len(body)}"] if has_length else []),
        "Cache-Control: no-store",
        "Connection: close",
        "X-Content-Type-Options: nosniff",
        *(more or []),
    ]
    head = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
    return head if method == "HEAD" else head + body
