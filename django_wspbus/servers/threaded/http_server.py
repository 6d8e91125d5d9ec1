"""Django's server on a socket of the site, and the connections that it has accepted."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from django.core.servers.basehttp import ThreadedWSGIServer

from ...application.interfaces import Application
from ...process.slots import LONGEST_NAME, InFlight, printable
from .one_thread import OneThread
from .request_handler import UNREAD, RequestHandler
from .response_handler import ResponseHandler

if TYPE_CHECKING:
    from ...sockets.bound import Bound

WAITING = "{} (waiting for its turn)"


@dataclass(slots=True)
class Exchange:
    """A connection, and the request that is being answered there."""

    thread: threading.Thread
    """The thread of the connection."""
    runner: threading.Thread
    """The thread that runs the application for it."""
    request: str = UNREAD
    name: str = ""
    """"METHOD /path?query" of the last request."""
    response: ResponseHandler | None = None
    """The response to the request in flight."""

    def in_flight(self) -> InFlight | None:
        """Return the request in flight; None while the connection waits for one, or reads it."""
        response, thread = self.response, self.runner.ident
        if response is None or thread is None:
            return None
        name = printable(unquote(self.name.partition("?")[0]))[:LONGEST_NAME]  # as the application gets it
        started = response.started
        return InFlight(0, 0, thread, started, response.progressed, started, name)


class HTTPServer(ThreadedWSGIServer):
    """Django's server on a socket of the site. It knows its connections and their requests.

    ``stop`` becomes readable when it is to stop; ``notify()`` is called whenever there is less to wait for.
    ``keep_alive``: seconds after an answer in which a connection may bring another request although the
    server stops.
    ``one_thread`` runs the application for all requests; None: the thread of each connection does.
    """

    def __init__(
        self,
        bound: Bound,
        application: Application,
        stop: socket.socket,
        notify: Callable[[], None],
        keep_alive: float,
        one_thread: OneThread | None = None,
    ) -> None:
        self.address_family = bound.socket.family
        name = bound.socket.getsockname()
        super().__init__(name, RequestHandler, bind_and_activate=False)
        self.socket.close()
        # A descriptor of its own: closing it leaves the site's open, and O_NONBLOCK suits every server.
        self.socket = bound.socket.dup()
        self.socket.setblocking(False)
        is_unix = bound.socket.family == socket.AF_UNIX
        self.server_name, self.server_port = ("localhost", 80) if is_unix else name[:2]
        self.setup_environ()
        self.wsgi = application
        self.stop = stop
        self._notify = notify
        self.keep_alive = keep_alive
        self.one_thread = one_thread
        self._exchanges: dict[socket.socket, Exchange] = {}
        self._leaving: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def accept(self) -> bool:
        """Take one connection and hand it to a thread of its own; return whether there was one."""
        try:
            connection, address = self.get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.1)  # until a descriptor is free; it is readable all the while
            return False
        address = address or ("", 0)  # that of a Unix socket is empty
        try:
            connection.setblocking(True)
            self.process_request(connection, address)
        except Exception:  # the system refuses a thread: only this connection is lost
            self.handle_error(connection, address)
            self.shutdown_request(connection)
        return True

    def cut_off(self, but: threading.Thread) -> None:
        """End all connections, with the requests in flight."""
        with self._lock:
            for connection, exchange in self._exchanges.items():
                if exchange.runner is not but:
                    with contextlib.suppress(OSError):  # it is closed already
                        connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._lock:
            self._exchanges[request] = Exchange(thread, thread)
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        exchange = self._exchanges.get(request)
        super().shutdown_request(request)
        with self._lock:
            self._leaving = {thread for thread in self._leaving if thread.is_alive()}
            if exchange is not None and exchange.thread is threading.current_thread():
                self._leaving.add(exchange.thread)
            self._exchanges.pop(request, None)
        self._notify()

    def exchanges(self) -> list[Exchange]:
        with self._lock:
            return list(self._exchanges.values())

    def threads(self) -> set[threading.Thread]:
        """Return the threads of its connections, also those that are about to end."""
        with self._lock:
            return self._leaving.union(exchange.thread for exchange in self._exchanges.values())

    def note_request(self, connection: socket.socket, request: str) -> None:
        exchange = self._exchanges[connection]
        exchange.request = exchange.name = request

    def run(self, connection: socket.socket, response: ResponseHandler) -> None:
        """Run the application for a request of a connection, in the thread that is meant for it."""
        exchange = self._exchanges[connection]
        exchange.response = response
        try:
            self._run(exchange, response)
        finally:
            exchange.response = None

    def _run(self, exchange: Exchange, response: ResponseHandler) -> None:
        if self.one_thread is None:
            response.run(self.wsgi)
            return
        request, exchange.request = exchange.request, WAITING.format(exchange.request)

        def run() -> None:
            exchange.request = request
            response.run(self.wsgi)

        exchange.runner = self.one_thread.thread
        self._notify()  # a request that makes the bus exit does not wait for those after it
        try:
            self.one_thread.call(run)
        finally:
            exchange.runner = exchange.thread
