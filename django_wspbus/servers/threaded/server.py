"""Django's own threaded server, in a thread of the site process."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import django

from ...conf.checks import check_boolean, check_option_names, check_positive
from ...conf.findings import Problem
from ...process.slots import InFlight
from ...sockets.queue import queue_length
from ...wspbus import EX_SOFTWARE, Refusal
from ..base import Server, in_words
from .http_server import Exchange, HTTPServer
from .one_thread import OneThread
from .request_handler import KEEP_ALIVE, LAST_CHANCE

if TYPE_CHECKING:
    from ...conf import ServerSettings

LONGEST_ACCEPT = 0.5
"""Seconds for which a stopping server accepts the clients in its queue, which others may join meanwhile."""


class ThreadedServer(Server):
    """Serves with Django's development server: each connection has a thread.

    With the option "threading" turned off, one other thread runs the application for all of them.
    """

    title = f"Django {django.get_version()}, threaded"
    is_for_development = True

    _thread: threading.Thread | None = None
    _leaves_queue = False
    _one_thread: OneThread | None = None
    _http_servers: Sequence[HTTPServer] = ()

    @classmethod
    def check_options(cls, settings: ServerSettings) -> Iterable[Problem]:
        path = settings.path("OPTIONS")
        options = dict(settings.options)
        # An option of gunicorn, whose name resembles "threading".
        if options.pop("threads", None) is not None:
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
        keep_alive = KEEP_ALIVE if self.site.time_for_requests is None else LAST_CHANCE
        self._http_servers = [
            HTTPServer(bound, application, self._stop, self.bus.wake, keep_alive, self._one_thread)
            for bound in self.bound()
        ]
        self._thread = threading.Thread(target=self._serve, name=f"Server {self.settings.alias}", daemon=True)
        self._thread.start()

    start.priority = 75  # type: ignore[attr-defined]

    def tell_to_stop(self) -> None:
        """Accept only the clients in the queue from now on; at a restart, leave them to the next program."""
        if self._thread is not None:
            self._leaves_queue = self.bus.execv
            self._running.close()

    def stop(self) -> None:
        """Answer the requests in flight and in the queue, close idle connections, and return."""
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
        if last:  # a request makes the bus exit, in this thread: the process waits for its answer
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
        if self.site.time_for_requests is None:
            raise Refusal(report, status=EX_SOFTWARE)
        self.bus.log(report)
        for each in self._http_servers:
            each.cut_off(but=here)

    def in_flight(self) -> list[InFlight]:
        return [request for each in self._exchanges() if (request := each.in_flight()) is not None]

    @property
    def failure(self) -> str | None:
        return None if self._thread is not None else f"the server {self.settings.alias!r} did not start"

    def _exchanges(self, but: threading.Thread | None = None) -> list[Exchange]:
        """Return the exchanges, except those whose application runs in the thread ``but``."""
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
