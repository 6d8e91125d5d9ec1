"""What answers one probe: HTTP, as little of it as a probe needs."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from .health import Report

TIME_TO_ASK = 2
"""Seconds that a client has to send its request."""


class ProbeHandler(BaseHTTPRequestHandler):
    """One request on a connection, and its answer. ``reports``: path -> what makes the report."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # of what is no request at all, too: it is told so

    def __init__(self, connection: socket.socket, reports: Mapping[str, Callable[[], Report]]) -> None:
        self.reports = reports
        super().__init__(connection, None, None)  # type: ignore[arg-type]  # which it only keeps

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(Request(self.connection))

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if self.parse_request():  # else it has told the client what is wrong
            self._respond()

    def _respond(self) -> None:
        path, _, query = self.path.partition("?")
        if path not in self.reports:
            self._send(HTTPStatus.NOT_FOUND, f"Here are {' and '.join(self.reports)}.")
        elif self.command not in ("GET", "HEAD"):
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD are allowed.", Allow="GET, HEAD")
        else:
            report = self.reports[path]()
            status = HTTPStatus.OK if report.is_good else HTTPStatus.SERVICE_UNAVAILABLE
            accept = ",".join(self.headers.get_all("Accept", []))
            if ("format", "json") in parse_qsl(query) or prefers_json(accept):
                self._send(status, report.json(), "application/json")
            else:
                self._send(status, report.text())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        status = HTTPStatus(code)
        self._send(status, message or status.phrase)

    def _send(
        self, status: HTTPStatus, text: str, kind: str = "text/plain; charset=utf-8", **headers: str
    ) -> None:
        body = f"{text}\n".encode(errors="backslashreplace")
        self.connection.settimeout(TIME_TO_ASK)
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


class Request(io.RawIOBase):
    """What a client sends, until `TIME_TO_ASK` is over: a socket's own timeout begins anew with each byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + TIME_TO_ASK

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(self._deadline - time.monotonic(), 0))
        return self._connection.recv_into(buffer)


def prefers_json(accept: str) -> bool:
    """Whether an Accept header names JSON, and no kind of text before it, or above it by its q."""
    best, chosen = 0.0, ""
    for part in accept.lower().split(","):
        kind, *parameters = (each.strip() for each in part.split(";"))
        weights = [match[1] for each in parameters if (match := re.fullmatch(r"q=([01](\.\d*)?)", each))]
        weight = float(weights[0]) if weights else 1.0
        if kind in ("application/json", "text/plain", "text/html") and weight > best:
            best, chosen = weight, kind
    return chosen == "application/json"
