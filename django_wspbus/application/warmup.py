"""WARMUP: requests that a worker makes to its own application before it is ready."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from django.core.signals import got_request_exception
from django.db import connections
from django.utils.encoding import iri_to_uri

from .. import __version__, conf
from ..project.tracebacks import explain
from ..wspbus import Refusal
from .interfaces import Application, Environ

MARK = "django_wspbus.application.warmup"
"""The WSGI variable that marks a warm-up request, because any thread may answer it."""
MOST_OF_A_BODY = 10_000_000
"""Bytes to read of a response, because it may have no end."""
MOST_OF_A_REASON = 200
"""Characters to show of the body of a failed response."""

logger = logging.getLogger("django.request")


def warm_up(application: Application, paths: Iterable[str]) -> None:
    """Request these paths from an application. A `Refusal` names the path that failed, and why.

    A response with any status below 500 is a success. For a failure the caller reports the `Refusal`;
    Django's own log records of it are dropped.
    """
    for path in paths:
        request = Request(path)
        try:
            request.perform(application)
        finally:
            _close_connections()
        if request.failure is not None:
            where = conf.setting_path("WARMUP")
            raise Refusal(f"{where}: the request for {path!r} {request.failure}")


class Request:
    """A request for a path, and the outcome: ``failure`` is None, or says how it failed."""

    def __init__(self, path: str) -> None:
        self.environ: Environ = {**environ_of(path), MARK: self}
        self.failure: str | None = None
        self._status = ""
        self._is_text = False
        self._beginning = b""
        self._size = 0
        self._errors: list[BaseException] = []
        self._records: list[logging.LogRecord] = []

    def perform(self, application: Application) -> None:
        with self._listening():
            try:
                with contextlib.suppress(_Enough):
                    self._read(application)
            except (Exception, SystemExit) as error:  # the project's code may raise anything
                self._note(error)
                self.failure = f"failed.\n{self._reason()}"
            else:
                if self._status.startswith("5"):
                    self.failure = f"was answered {self._status}.\n{self._reason()}".rstrip()
        if self.failure is None:  # a failure is reported by the Refusal
            for record in self._records:
                logger.handle(record)

    def _read(self, application: Application) -> None:
        body = application(self.environ, self._start_response)
        try:
            for data in body:
                self._write(data)
        finally:
            close: Callable[[], object] | None = getattr(body, "close", None)
            if close is not None:
                close()
        if not self._status:
            raise RuntimeError("The application did not call start_response.")

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            if self._size:  # too late for another response (PEP 3333)
                raise exc_info[1].with_traceback(exc_info[2])
            self._note(exc_info[1])
        elif self._status:
            raise RuntimeError("The application called start_response twice.")
        self._status = status
        types = [value.lower() for name, value in headers if name.lower() == "content-type"]
        self._is_text = any(each.startswith(("text/", "application/json")) for each in types)
        return self._write

    def _write(self, data: bytes) -> None:
        self._size += len(data)
        if len(self._beginning) < MOST_OF_A_REASON * 4:
            self._beginning += data[: MOST_OF_A_REASON * 4]
        if self._size > MOST_OF_A_BODY:
            raise _Enough

    # Reasons

    def _reason(self) -> str:
        if self._errors:
            return "\n".join(map(explain, self._errors))
        text = self._beginning.decode(errors="replace") if self._is_text else ""
        return " ".join(text.split())[:MOST_OF_A_REASON]

    def _note(self, error: BaseException) -> None:
        """Keep an error, and drop those that its traceback shows anyway."""
        shown = _shown(error)
        self._errors = [*(each for each in self._errors if each not in shown), error]

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Keep the exceptions that Django turns into a 500, and its log records of a 5xx."""
        got_request_exception.connect(self._note_exception, weak=False)
        logger.addFilter(self._is_to_be_logged)
        try:
            yield
        finally:
            logger.removeFilter(self._is_to_be_logged)
            got_request_exception.disconnect(self._note_exception)

    def _note_exception(self, *, request: Any, **kwargs: Any) -> None:
        error = sys.exception()
        if error is not None and self._is_mine(request):
            self._note(error)

    def _is_to_be_logged(self, record: logging.LogRecord) -> bool:
        if self._is_mine(getattr(record, "request", None)) and getattr(record, "status_code", 0) >= 500:
            self._records.append(record)
            return False
        return True

    def _is_mine(self, request: Any) -> bool:
        return getattr(request, "META", {}).get(MARK) is self


class _Enough(Exception):
    """Raised to stop reading a response that is too long."""


def _close_connections() -> None:
    """Close the database connections of this thread, because it may never answer another request."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:  # a test's transaction
            connection.close()


def environ_of(path: str) -> Environ:
    """Return the WSGI variables (PEP 3333) of a GET request. The path may have a query string."""
    host, scheme, claim = conf.own_host()
    path, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": iri_to_uri(query),
        "SERVER_NAME": host,
        "SERVER_PORT": "443" if scheme == "https" else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": host,
        "HTTP_USER_AGENT": f"django-wspbus/{__version__} (warm-up)",
        **claim,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def _shown(error: BaseException | None) -> list[BaseException]:
    """Return the errors that a traceback shows: the error, its causes and its contexts."""
    shown: list[BaseException] = []
    while error is not None and error not in shown:
        shown.append(error)
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    return shown
