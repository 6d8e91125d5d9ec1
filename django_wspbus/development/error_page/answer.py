"""The answers of the error page, byte by byte."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus

from .hosts import is_allowed
from .request import Request

WAIT = "/__wspbus_wait__"
"""A request for this path is answered in full when the program ends."""

RETRY = "/__wspbus_retry__"
"""A POST to this path, with the token of the page, has the site started again: as when a database is back."""

HEADER = "X-Wspbus-Wait"
AGAIN = b"again\n"
"""What ends that answer when something has changed; nothing, if the program was stopped."""

NO_HOST = """\
The site does not start, and its error page does not answer for this host: it answers for localhost, for the
addresses that the site listens on, and for the hosts of ALLOWED_HOSTS, once the site has started with them.
"""
NOT_OURS = "Only the error page itself may ask for this: load it again.\n"

CLOSED = "The site does not start at present; the reason is in its terminal."

TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
}
# The page is one piece, and what an error quotes is not to bring in more.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@dataclass(slots=True)
class Report:
    """The error, as the launcher has it. ``hosts``: those that may be asked for besides `hosts.LOCAL`."""

    title: str
    text: str
    is_public: bool
    """Whether clients may know."""
    root: str
    hosts: list[str] = field(default_factory=list)


class Answers:
    """Makes answers out of a report, and keeps them."""

    def __init__(self, report: Report, retry: Callable[[], None] = lambda: None) -> None:
        self._report = report
        self._retry = retry
        self._bodies: dict[tuple[str, bool], bytes] = {}
        # Those that wait for another program, of an earlier error, need not wait any longer.
        self._wait = f"{WAIT}?{os.getpid()}-{time.time_ns()}"
        self._token = f"{RETRY}?{secrets.token_urlsafe()}"

    def holds(self, request: Request, own: Iterable[str] = ()) -> bool:
        """Whether the answer to this request stays open; ``own``: hosts of the connection."""
        is_wait = request.target in (WAIT, self._wait) and request.method != "HEAD"
        return is_wait and request.is_of_own_page() and self._is_for_us(request, own)

    def _is_for_us(self, request: Request, own: Iterable[str]) -> bool:
        return is_allowed(request.target, request.netloc, (*own, *self._report.hosts))

    def answer(self, request: Request | None, status: int, own: Iterable[str] = ()) -> bytes:
        """Return an answer, of a held one the beginning; ``request`` is None if none could be read."""
        if request is None:
            return _answer(status, "text", f"{HTTPStatus(status).phrase}\n".encode())
        if not self._is_for_us(request, own):
            return _answer(400, "text", NO_HOST.encode(), request.method)
        path = request.target.partition("?")[0]
        if path in (RETRY, WAIT) and not request.is_of_own_page():
            return _answer(403, "text", NOT_OURS.encode(), request.method)
        if path == RETRY:
            return self._answer_retry(request)
        if path == WAIT:
            body = b"" if self.holds(request, own) else AGAIN
            return _answer(200, "text", body, request.method, [f"{HEADER}: 1"], has_length=False)
        kind = request.preferred()
        key = kind, request.method == "GET"
        if key not in self._bodies:
            self._bodies[key] = self._body(*key).encode(errors="backslashreplace")
        more = [f"Content-Security-Policy: {POLICY}"] if kind == "html" else []
        return _answer(status, kind, self._bodies[key], request.method, more)

    def _answer_retry(self, request: Request) -> bytes:
        if request.method == "POST":
            if not hmac.compare_digest(request.target.encode("latin-1"), self._token.encode()):
                return _answer(403, "text", NOT_OURS.encode())
            self._retry()
        page = request.page()
        return _answer(303, "text", b"", request.method, [f"Location: {'/' if RETRY in page else page}"])

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
            return html.page(report.title, report.text, report.root, script, self._token)
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
        "Cross-Origin-Resource-Policy: same-origin",
        *(more or []),
    ]
    head = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
    return head if method == "HEAD" else head + body
