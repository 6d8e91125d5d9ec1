"""HTTP requests and responses of probes, reduced to what a probe needs."""

from __future__ import annotations

import io
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl

from .report import Report

PATHS = ("/livez", "/readyz")

MOST_OF_A_HEAD = 100_000
"""Bytes of a head to wait for at most: http.server accepts no line of more than 65,536."""

# A blank first line ends the head, because http.server reads no further.
HEAD_END = re.compile(rb"\A\r?\n|\r?\n\r?\n")


def is_complete(head: bytes | bytearray) -> bool:
    """Return whether the head of a request is complete."""
    return len(head) > MOST_OF_A_HEAD or HEAD_END.search(head) is not None


class Request(BaseHTTPRequestHandler):
    """The head of a request and, in ``output``, the response.

    ``asked``: the path of the report that the client wants. None: ``output`` is complete without a report.
    """

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # so that bytes that are no request get a response as well

    def __init__(self, head: bytes) -> None:
        self.asked: str | None = None
        self._head = head
        super().__init__(head, None, None)  # type: ignore[arg-type]  # it only stores them

    def setup(self) -> None:
        self.rfile = io.BytesIO(self._head)
        self.wfile = io.BytesIO()

    def finish(self) -> None:
        self.output = self.wfile.getvalue()  # type: ignore[attr-defined]

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if self.parse_request():  # else it has sent an error, or ignores a blank line
            self._respond()

    def _respond(self) -> None:
        path, _, self._query = self.path.partition("?")
        if path not in PATHS:
            self._send(HTTPStatus.NOT_FOUND, f"Not found. The paths are {' and '.join(PATHS)}.")
        elif self.command not in ("GET", "HEAD"):
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD are allowed.", Allow="GET, HEAD")
        else:
            self.asked = path

    def answer(self, report: Report) -> None:
        """Write the response for a report."""
        status = HTTPStatus.OK if report.is_good else HTTPStatus.SERVICE_UNAVAILABLE
        accept = ",".join(self.headers.get_all("Accept", []))
        if ("format", "json") in parse_qsl(self._query) or prefers_json(accept):
            self._send(status, report.json(), "application/json")
        else:
            self._send(status, report.text())
        self.finish()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        status = HTTPStatus(code)
        self._send(status, message or status.phrase)

    def _send(
        self, status: HTTPStatus, text: str, kind: str = "text/plain; charset=utf-8", **headers: str
    ) -> None:
        body = f"{text}\n".encode(errors="backslashreplace")
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def prefers_json(accept: str) -> bool:
    """Return whether an Accept header prefers JSON to text, by its q values and then by its order."""
    best, chosen = 0.0, ""
    for part in accept.lower().split(","):
        kind, *parameters = (each.strip() for each in part.split(";"))
        weights = [match[1] for each in parameters if (match := re.fullmatch(r"q=([01](\.\d*)?)", each))]
        weight = float(weights[0]) if weights else 1.0
        if kind in ("application/json", "text/plain", "text/html") and weight > best:
            best, chosen = weight, kind
    return chosen == "application/json"
