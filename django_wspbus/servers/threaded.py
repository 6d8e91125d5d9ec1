"""Django's own threaded server, in a thread of the site process."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import django
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

from ..application import Application
from ..problems import Problem
from ..validation import check_option_names, check_positive
from .base import Server

if TYPE_CHECKING:
    from ..conf import ServerSettings
    from .sockets import Bound


class ThreadedServer(Server):
    """Serves with Django's development server, a thread for each connection."""

    title = f"Django {django.get_version()}, threaded"

    _thread: threading.Thread | None = None

    @classmethod
    def check_options(cls, settings: ServerSettings) -> Iterable[Problem]:
        path = settings.path("OPTIONS")
        yield from check_option_names(path, settings.options, ["backlog"], "the threaded server")
        yield from check_positive(path, settings.options, "backlog")

    def start(self) -> None:
        if self._thread is not None:
            return
        application = self.load()
        self._http_servers = [HTTPServer(bound, application) for bound in self.bound()]
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name=f"Server {self.settings.alias}", daemon=True)
        self._thread.start()

    start.priority = 75  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Answer what is in flight and what is queued, close idle connections, and return."""
        if self._thread is None:
            return
        self._wake_writer.send(b".")
        self._thread.join()
        self._thread = None
        self._wake_reader.close()
        self._wake_writer.close()
        for server in self._http_servers:
            server.drain()

    stop.priority = 25  # type: ignore[attr-defined]

    def _serve(self) -> None:
        by_descriptor = {server.fileno(): server for server in self._http_servers}
        poll = select.poll()
        for descriptor in (self._wake_reader.fileno(), *by_descriptor):
            poll.register(descriptor, select.POLLIN)
        stopping = False
        while not stopping:
            for descriptor, _ in poll.poll():
                if descriptor in by_descriptor:
                    by_descriptor[descriptor].accept()
                else:
                    stopping = True
        for server in self._http_servers:
            while server.accept():  # who is in the queue has been promised an answer
                pass


class HTTPServer(ThreadedWSGIServer):
    """Django's server on a socket that is the site's, which knows which connections are idle."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, bound: Bound, application: Application) -> None:
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
        self.set_app(application)
        self._changed = threading.Condition()
        self._idle: dict[socket.socket, bool] = {}
        self._draining = False

    def accept(self) -> bool:
        """Take one connection and hand it to a thread of its own; return whether there was one."""
        try:
            connection, address = self.get_request()
        except OSError:
            return False
        connection.setblocking(True)
        with self._changed:
            self._idle[connection] = False  # until its thread has seen that nothing was sent yet
        try:
            self.process_request(connection, address or ("", 0))
        except Exception:  # no thread to be had: this connection is lost, the server is not
            self.handle_error(connection, address)
            self.shutdown_request(connection)
        return True

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._idle.pop(request, None)
            self._changed.notify_all()

    def may_wait(self, connection: socket.socket) -> bool:
        """Note that a connection waits for a request; False if it must end, as nothing was sent."""
        with self._changed:
            if self._draining and not _is_readable(connection):
                return False
            self._idle[connection] = True
            return True

    def note_request(self, connection: socket.socket) -> None:
        with self._changed:
            self._idle[connection] = False

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """Wait until every request is answered; end the connections that have none."""
        with self._changed:
            self._draining = True
            for connection, idle in self._idle.items():
                if idle:
                    with contextlib.suppress(OSError):  # what was sent already can still be read
                        connection.shutdown(socket.SHUT_RD)
            while self._idle:
                self._changed.wait()
        self.server_close()


class RequestHandler(WSGIRequestHandler):
    """Django's handler, which tells its server between which requests it is idle."""

    server: HTTPServer
    connection: socket.socket  # type: ignore[assignment]  # Django's stubs say a request

    def address_string(self) -> str:
        return self.client_address[0] or "unix"

    def handle_one_request(self) -> None:
        if not self.server.may_wait(self.connection) or not self._has_request():
            self.close_connection = True
            return
        self.server.note_request(self.connection)
        super().handle_one_request()
        if self.server.draining:
            self.close_connection = True

    def _has_request(self) -> bool:
        try:
            return bool(self.rfile.peek(1))  # type: ignore[attr-defined]
        except OSError:  # reset by the client
            return False


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
