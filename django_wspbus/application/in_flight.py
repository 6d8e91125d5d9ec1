"""The requests that a process is answering, noted in its record for the site to read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..process.record import Record
from ..process.slots import InFlight
from .interfaces import Application, Environ

UNRECORDED = -1
"""The slot of a request for which none was free."""


class RequestsInFlight:
    """Notes when a request begins, makes progress, and ends. Any thread may call it, or any greenlet.

    A thread answers one request at a time. ``follows_sockets``: whether `socket_of` knows the sockets.
    """

    def __init__(self, record: Record, *, follows_sockets: bool = False) -> None:
        self._record = record
        self._slots = record.slots
        self._free = list(range(record.slots.count))[::-1]
        self._of_thread = threading.local()
        self._unrecorded = threading.Lock()
        self._follows_sockets = follows_sockets
        self._sockets: list[Any] = [None] * record.slots.count

    def begin(self, method: str, path: str) -> None:
        """Note that this thread begins to answer a request."""
        try:
            slot = self._free.pop()
        except IndexError:
            self._count_unrecorded(1)
            slot = UNRECORDED
        else:
            name = f"{method} {path}"
            if not name.isprintable():  # a line break would forge a line of the log
                name = "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)
            encoded = name.encode(errors="replace")
            self._slots.begin(slot, threading.get_ident(), encoded, time.monotonic())
        self._of_thread.slot = slot

    def end(self) -> None:
        """Note that this thread has answered its request."""
        slot: int | None = getattr(self._of_thread, "slot", None)
        if slot is None:
            return
        self._of_thread.slot = None
        if slot == UNRECORDED:
            self._count_unrecorded(-1)
            return
        self._sockets[slot] = None
        self._slots.end(slot, time.monotonic())
        self._free.append(slot)

    def progress(self, slot: int) -> None:
        """Note that the request in a slot makes progress."""
        self._slots.progress(slot, time.monotonic())

    def names(self) -> list[str]:
        """Return the requests that are being answered: ["GET /"]."""
        return [request.name for request in self.all()]

    def all(self) -> list[InFlight]:
        return list(self._slots.in_flight())

    def socket_of(self, slot: int) -> Any:
        """Return the socket of the client of a request, if it is known."""
        return self._sockets[slot]

    def _count_unrecorded(self, change: int) -> None:
        with self._unrecorded:
            self._record.unrecorded += change

    # Responses

    def follow(self, application: Application) -> Application:
        """Return an application that notes each chunk of a streamed response as progress."""

        def follow_response(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
            if self._follows_sockets:
                slot = getattr(self._of_thread, "slot", None)
                if slot is not None and slot != UNRECORDED:
                    self._sockets[slot] = environ.get("gunicorn.socket")
            response = application(environ, start_response)
            # Django's responses say whether they are streamed; a list is whole, and a file is for sendfile.
            if getattr(response, "streaming", None) is False or isinstance(response, list | tuple):
                return response
            return self._follow_stream(environ, response)

        return follow_response

    def record(self, application: Application) -> Application:
        """Return an application that notes its own requests, for a server that says nothing of them."""
        followed = self.follow(application)

        def record_request(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
            self.begin(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
            try:
                response = followed(environ, start_response)
            except BaseException:
                self.end()
                raise
            return Recorded(response, self)

        return record_request

    def _follow_stream(self, environ: Environ, response: Iterable[bytes]) -> Iterable[bytes]:
        slot: int | None = getattr(self._of_thread, "slot", None)
        wrapper = environ.get("wsgi.file_wrapper")
        is_file = isinstance(wrapper, type) and isinstance(response, wrapper)
        # A server may have a marker for "answered already", which is no iterable.
        if slot is None or slot == UNRECORDED or is_file or not hasattr(response, "__iter__"):
            return response
        return Stream(response, self, slot)


class Recorded:
    """A response whose end is that of its request; the server closes it (PEP 3333)."""

    def __init__(self, response: Iterable[bytes], requests: RequestsInFlight) -> None:
        self._response = response
        self._requests = requests

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response)

    def close(self) -> None:
        try:
            _close(self._response)
        finally:
            self._requests.end()


class Stream:
    """The chunks of a streamed response."""

    def __init__(self, response: Iterable[bytes], requests: RequestsInFlight, slot: int) -> None:
        self._response = response
        self._requests = requests
        self._slot = slot

    def __iter__(self) -> Iterator[bytes]:
        self._chunks = iter(self._response)
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self._requests.progress(self._slot)
        return chunk

    def close(self) -> None:
        _close(self._response)


def _close(response: Iterable[bytes]) -> None:
    close: Callable[[], object] | None = getattr(response, "close", None)
    if close is not None:
        close()
