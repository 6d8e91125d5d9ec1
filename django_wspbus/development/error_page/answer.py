"""The HTTP responses of the error page."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus

from ..launch import ErrorReport
from .hosts import is_allowed
from .request import Request

WAIT_PATH = "/__wspbus_wait__"
"""The page requests this path to learn when to load itself again: the answer ends when the program does."""

RETRY_PATH = "/__wspbus_retry__"
"""A POST to this path, with the token of the page, starts the site again, as after a repair of a database."""

WAIT_HEADER = "X-Wspbus-Wait"
"""The header by which the page recognizes an answer of `WAIT_PATH`."""

AGAIN = b"again\n"
"""The body of the answer of `WAIT_PATH` after a change of a file. It is empty if the program was stopped."""

UNKNOWN_HOST = """\
The site does not start, and its error page does not answer for this host: it answers for localhost, for the
addresses that the site listens on, and for the hosts of ALLOWED_HOSTS, once the site has started with them.
"""
NOT_OF_PAGE = "Only the error page itself may request this path: load the page again.\n"

NO_DETAILS = "The site does not start at present; the reason is in its terminal."

TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
}
# The page loads nothing else, and text that an error quotes must not load anything either.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Answers:
    """Makes the answers from a report, and caches their bodies."""

    def __init__(self, report: ErrorReport, retry: Callable[[], None] = lambda: None) -> None:
        self._report = report
        self._retry = retry
        self._bodies: dict[tuple[str, bool], bytes] = {}
        # A page of an earlier error has another target: its request ends at once, and the page loads again.
        self._wait = f"{WAIT_PATH}?{os.getpid()}-{time.time_ns()}"
        self._token = f"{RETRY_PATH}?{secrets.token_urlsafe()}"

    def holds(self, request: Request, own: Iterable[str] = ()) -> bool:
        """Return whether the answer to a request stays open; ``own``: the hosts of the connection."""
        is_wait = request.target in (WAIT_PATH, self._wait) and request.method != "HEAD"
        return is_wait and request.is_of_own_page() and self._is_for_us(request, own)

    def _is_for_us(self, request: Request, own: Iterable[str]) -> bool:
        return is_allowed(request.target, request.netloc, (*own, *self._report.hosts))

    def answer(self, request: Request | None, status: int, own: Iterable[str] = ()) -> bytes:
        """Return an answer, or the beginning of one that stays open.

        ``request`` is None if the bytes were no request.
        """
        if request is None:
            return _answer(status, "text", f"{HTTPStatus(status).phrase}\n".encode())
        if not self._is_for_us(request, own):
            return _answer(400, "text", UNKNOWN_HOST.encode(), request.method)
        path = request.target.partition("?")[0]
        if path in (RETRY_PATH, WAIT_PATH) and not request.is_of_own_page():
            return _answer(403, "text", NOT_OF_PAGE.encode(), request.method)
        if path == RETRY_PATH:
            return self._answer_retry(request)
        if path == WAIT_PATH:
            body = b"" if self.holds(request, own) else AGAIN
            return _answer(200, "text", body, request.method, [f"{WAIT_HEADER}: 1"], has_length=False)
        kind = request.preferred()
        key = kind, request.method == "GET"
        if key not in self._bodies:
            self._bodies[key] = self._body(*key).encode(errors="backslashreplace")
        more = [f"Content-Security-Policy: {POLICY}"] if kind == "html" else []
        return _answer(status, kind, self._bodies[key], request.method, more)

    def _answer_retry(self, request: Request) -> bytes:
        if request.method == "POST":
            if not hmac.compare_digest(request.target.encode("latin-1"), self._token.encode()):
                return _answer(403, "text", NOT_OF_PAGE.encode())
            self._retry()
        page = request.page()
        location = "/" if RETRY_PATH in page else page
        return _answer(303, "text", b"", request.method, [f"Location: {location}"])

    def _body(self, kind: str, is_of_get: bool) -> str:
        report = self._report
        if kind == "json":
            public = {"error": report.title, "traceback": report.text}
            return json.dumps(public if report.is_public else {"error": NO_DETAILS}) + "\n"
        if kind == "text":
            said = report.text.strip("\n")
            is_whole = report.title in said or "Traceback (most recent" in said
            said = said if is_whole else f"{report.title}\n\n{said}"
            return f"{said if report.is_public else NO_DETAILS}\n"
        from . import html  # only for a browser, because the import takes time

        script = html.reloading(self._wait, WAIT_HEADER, is_of_get)
        if report.is_public:
            return html.page(report.title, report.text, report.root, script, self._token)
        return html.page_without_details(NO_DETAILS, script)


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
