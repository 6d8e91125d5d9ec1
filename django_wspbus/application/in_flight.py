"""The requests that a process is answering, noted in its record for the site to read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import Any

from ..process.record import Record
from ..process.slots import InFlight, Slot
from .interfaces import Application, Environ

SLOT = "django_wspbus.slot"
"""The key of the environ of a request for its slot, from its begin to its end."""

UNRECORDED = object()
"""The slot of a request for which none was free."""


class RequestsInFlight:
    """Notes when a request begins, makes progress, and ends, in any thread or greenlet."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._slots = record.slots
        self._free = record.slots.writers[::-1]
        self._unrecorded = threading.Lock()
        self._thread = threading.get_ident  # that of the greenlet, if gevent has patched it
        self._now = time.monotonic

    # Every request pays for this code: between the work of a request, hardly any of it is in the processor's
    # caches, and a call takes several times as long as in a loop of its own.

    def begin(self, environ: Environ) -> Slot | None:
        """Note that this thread begins to answer a request; return its slot, None if none is free."""
        try:
            slot = self._free.pop()
        except IndexError:
            self._count_unrecorded(1)
            environ[SLOT] = UNRECORDED
            return None
        environ[SLOT] = slot
        slot.environ = environ
        name = f"{environ['REQUEST_METHOD']} {environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        slot.begin(self._thread(), name, self._now())
        return slot

    def end(self, environ: Environ) -> None:
        """Note that a request has been answered; without effect if it has not begun, or ended already."""
        slot = environ.pop(SLOT, None)
        if slot is None:
            return
        if slot is UNRECORDED:
            self._count_unrecorded(-1)
            return
        slot.environ = None
        slot.end(self._now())
        self._free.append(slot)

    def progress(self, slot: int) -> None:
        """Note that the request in a slot makes progress."""
        self._slots.writers[slot].progress(self._now())

    def names(self) -> list[str]:
        """Return the requests that are being answered: ["GET /"]."""
        return [request.name for request in self.all()]

    def all(self) -> list[InFlight]:
        return list(self._slots.in_flight())

    def socket_of(self, slot: int) -> Any:
        """Return the socket of the client of a request, if it is known."""
        environ = self._slots.writers[slot].environ
        return None if environ is None else environ.get("gunicorn.socket")

    def _count_unrecorded(self, change: int) -> None:
        with self._unrecorded:
            self._record.unrecorded += change

    # Responses

    def follow(self, application: Application) -> Application:
        """Return an application that notes its requests, for a server that calls `end` after each of them."""
        begin = self.begin

        def begin_request(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
            slot = begin(environ)
            response = application(environ, start_response)
            # Django's responses say whether they are streamed.
            if response.__class__ is list or getattr(response, "streaming", None) is False or slot is None:
                return response
            return Stream(response, slot) if is_stream(response, environ) else response

        return begin_request

    def record(self, application: Application) -> Application:
        """Return an application that notes its requests, for a server that only closes its responses."""
        followed = self.follow(application)

        def record_request(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
            try:
                response = followed(environ, start_response)
            except BaseException:
                self.end(environ)
                raise
            return Recorded(response, self, environ)

        return record_request


def nothing() -> None: ...


class Recorded:
    """A response whose end is that of its request; the server closes it (PEP 3333)."""

    def __init__(self, response: Iterable[bytes], requests: RequestsInFlight, environ: Environ) -> None:
        self._response = response
        self._requests = requests
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response)

    def close(self) -> None:
        close: Callable[[], object] = getattr(self._response, "close", nothing)
        try:
            close()
        finally:
            self._requests.end(self._environ)


class Stream:
    """The chunks of a streamed response, each of which is progress."""

    __slots__ = ("_response", "_slot", "close")

    def __init__(self, response: Iterable[bytes], slot: Slot) -> None:
        self._response = response
        self._slot = slot
        close: Callable[[], object] | None = getattr(response, "close", None)
        if close is not None:
            self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._slot.follow(self._response)


def is_stream(response: object, environ: Environ) -> bool:
    """Return whether a response has chunks to follow."""
    if response.__class__ is GeneratorType:
        return True
    file_wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(file_wrapper, type) and isinstance(response, file_wrapper):  # it is for sendfile
        return False
    # A server may have a marker for "answered already", which is no iterable.
    return hasattr(response, "__iter__") and not isinstance(response, list | tuple)
