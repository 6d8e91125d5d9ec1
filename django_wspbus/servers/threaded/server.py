"""Django's own threaded server, in a thread of the site process."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import django
from django.core.servers.basehttp import ServerHandler, ThreadedWSGIServer

from ...application.interfaces import Application
from ...conf.checks import check_boolean, check_option_names, check_positive
from ...conf.findings import Problem
from ...sockets.queue import queue_length
from ...wspbus import EX_SOFTWARE, Refusal
from ..base import Server, in_words
from .one_thread import OneThread
from .request_handler import KEEP_ALIVE, LAST_CHANCE, UNREAD, RequestHandler

if TYPE_CHECKING:
    from ...conf import ServerSettings
    from ...sockets.bound import Bound

WAITING = "{} (waiting for its turn)"

LONGEST_ACCEPT = 0.5
"""Seconds that a server which stops takes to accept its queue: each client may be followed by another."""


class ThreadedServer(Server):
    """Serves with Django's development server: each connection has a thread.

    With the option "threading" turned off, one other thread runs the application for all of them.
    """

    title = f"Django {django.get_version()}, threaded"
    is_for_development = True

    _thread: threading.Thread | None = None
    _leaves_queue = False
    _one_thread: OneThread | None = None

    @classmethod
    def check_options(cls, settings: ServerSettings) -> Iterable[Problem]:
        path = settings.path("OPTIONS")
        options = dict(settings.options)
        if options.pop("threads", None) is not None:  # it is of gunicorn, and too near to the other
            message = "the threaded server has no option 'threads'."
            yield Problem("E012", f'{path}["threads"]', message, "Each connection has a thread of its own.")
        yield from check_option_names(path, options, ["backlog", "threading"], "the threaded server")
        yield from check_positive(path, settings.options, "backlog")
        yield from check_boolean(path, settings.options, "threading")

    def start(self) -> None:
        if self._thread is not None:
            return
        application = self.load()
        self.warm_up(application)
        # Closing one end tells the thread that accepts, and every connection that waits for a request.
        self._stop, self._running = socket.socketpair()
        has_threads = self.settings.options.get("threading", True)
        self._one_thread = None if has_threads else OneThread(f"Requests of {self.settings.alias}")
        # In development a save must not wait for idle connections.
        keep_alive = KEEP_ALIVE if self.time_for_requests is None else LAST_CHANCE
        self._http_servers = [
            HTTPServer(bound, application, self._stop, self.bus.wake, keep_alive, self._one_thread)
            for bound in self.bound()
        ]
        self._thread = threading.Thread(target=self._serve, name=f"Server {self.settings.alias}", daemon=True)
        self._thread.start()

    start.priority = 75  # type: ignore[attr-defined]

    def tell_to_stop(self) -> None:
        """Take none but those in the queue, which over a restart is left to the next program."""
        if self._thread is not None:
            self._leaves_queue = self.bus.execv
            self._running.close()

    def stop(self) -> None:
        """Answer what is in flight and what is queued, close idle connections, and return."""
        if self._thread is None:
            return
        self.tell_to_stop()
        timeout = self.time_to_stop()
        until = time.monotonic() + timeout
        self._thread.join()
        self._thread = None
        for server in self._http_servers:
            server.server_close()
        here = threading.current_thread()
        threads = {thread for server in self._http_servers for thread in server.threads()}
        if not self.bus.wait_for(lambda: not self._exchanges(but=here), max(until - time.monotonic(), 0)):
            if self._one_thread is not None:
                self._one_thread.end()
            self._cut_off(here, timeout)
            return
        last = {exchange.thread for exchange in self._exchanges()}
        for thread in threads - last:
            thread.join(max(until - time.monotonic(), LAST_CHANCE))
        if last:  # a request has told the bus to exit, in this thread: the process waits for its answer
            name = f"Last request of {self.settings.alias}"
            threading.Thread(target=self._await_last, args=(last,), name=name, daemon=False).start()
        else:
            self._await_last(())
            self._stop.close()

    stop.priority = 25  # type: ignore[attr-defined]

    def _await_last(self, threads: Iterable[threading.Thread]) -> None:
        """Wait for the threads of the last connections; end the thread that runs the application for them."""
        for thread in threads:
            thread.join()
        if self._one_thread is not None:
            self._one_thread.end()
            self._one_thread.thread.join()

    def _cut_off(self, here: threading.Thread, timeout: float) -> None:
        """Name the requests that have not been answered in time; in development, cut them off as well."""
        requests = in_words(exchange.request for exchange in self._exchanges(but=here))
        server = f"The server {self.settings.alias!r}"
        report = f"{server}: requests cut off after {timeout:.3g} seconds: {requests}."
        if self.time_for_requests is None:
            raise Refusal(report, status=EX_SOFTWARE)
        self.bus.log(report)
        for each in self._http_servers:
            each.cut_off(but=here)

    @property
    def failure(self) -> str | None:
        return None if self._thread is not None else f"the server {self.settings.alias!r} did not start"

    def _exchanges(self, but: threading.Thread | None = None) -> list[Exchange]:
        """Return the exchanges whose application runs in another thread than ``but``, or will."""
        exchanges = (exchange for server in self._http_servers for exchange in server.exchanges())
        return [exchange for exchange in exchanges if but is None or exchange.runner is not but]

    def _serve(self) -> None:
        by_descriptor = {server.fileno(): server for server in self._http_servers}
        poll = select.poll()
        for descriptor in (self._stop.fileno(), *by_descriptor):
            poll.register(descriptor, select.POLLIN)
        stopping = False
        while not stopping:
            for descriptor, _ in poll.poll():
                if descriptor in by_descriptor:
                    by_descriptor[descriptor].accept()
                else:
                    stopping = True
        for server in self._http_servers if not self._leaves_queue else ():
            most = queue_length(server.socket)  # each that is taken makes room for one more
            until = time.monotonic() + LONGEST_ACCEPT
            while most != 0 and time.monotonic() < until and server.accept():
                most = most and most - 1


@dataclass(slots=True)
class Exchange:
    """A connection, and the request that is being answered there."""

    thread: threading.Thread
    """The thread of the connection."""
    runner: threading.Thread
    """The thread that runs the application for it."""
    request: str = UNREAD


class HTTPServer(ThreadedWSGIServer):
    """Django's server on a socket that is the site's, which knows what goes on in its threads.

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
        except Exception:  # no thread to be had: this connection is lost, the server is not
            self.handle_error(connection, address)
            self.shutdown_request(connection)
        return True

    def cut_off(self, but: threading.Thread) -> None:
        """End all connections, whatever goes on there."""
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
        """Return its threads, those included that have nothing left to do but to end."""
        with self._lock:
            return self._leaving.union(exchange.thread for exchange in self._exchanges.values())

    def note_request(self, connection: socket.socket, request: str) -> None:
        self._exchanges[connection].request = request

    def run(self, connection: socket.socket, response: ServerHandler) -> None:
        """Run the application for a request of a connection, in the thread that is meant for it."""
        if self.one_thread is None:
            response.run(self.wsgi)
            return
        exchange = self._exchanges[connection]
        request, exchange.request = exchange.request, WAITING.format(exchange.request)

        def run() -> None:
            exchange.request = request
            response.run(self.wsgi)

        exchange.runner = self.one_thread.thread
        self._notify()  # a request that has told the bus to exit does not wait for those after it
        try:
            self.one_thread.call(run)
        finally:
            exchange.runner = exchange.thread
