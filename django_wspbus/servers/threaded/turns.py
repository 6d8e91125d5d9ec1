"""Connections that are served in turn, by one thread for all of a server's."""

from __future__ import annotations

import logging
import queue
import select
import socket
import threading
import time
from typing import Protocol

from django.db import connections

logger = logging.getLogger("django_wspbus")


class Serves(Protocol):
    """What a turn is taken at: Django's servers have most of it from `socketserver`."""

    def process_request_thread(self, request: socket.socket, client_address: object) -> None: ...

    def shutdown_request(self, request: socket.socket) -> None: ...


Turn = tuple[Serves, socket.socket, object]


class Turns:
    """One thread that serves one connection at a time, each once its client has sent something.

    A browser connects before it knows what to ask; such a connection waits in ``poll``, which is that
    of the thread that accepts: all methods are for this thread to call.
    """

    def __init__(self, name: str, poll: select.poll) -> None:
        self._poll = poll
        self._silent: dict[int, Turn] = {}
        self._readable: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def add(self, server: Serves, connection: socket.socket, address: object) -> None:
        """Put a connection aside until it is readable."""
        self._silent[connection.fileno()] = server, connection, address
        self._poll.register(connection, select.POLLIN)

    def take(self, descriptor: int) -> None:
        """Serve a connection that is readable, or at its end, when its turn comes."""
        self._poll.unregister(descriptor)
        self._readable.put(self._silent.pop(descriptor))

    def end(self, chance: float) -> None:
        """Close the connections that send nothing within some seconds, and let the thread end after its last.

        It is not waited for.
        """
        deadline = time.monotonic() + chance
        # The sockets of the server, which are in the other, are not to wake this one.
        silent = select.poll()
        for descriptor in self._silent:
            silent.register(descriptor, select.POLLIN)
        while self._silent and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in silent.poll(left * 1000):
                silent.unregister(descriptor)
                self.take(descriptor)
        for server, connection, _ in self._silent.values():
            server.shutdown_request(connection)
        self._silent.clear()
        self._readable.put(None)

    def _serve(self) -> None:
        try:
            while (turn := self._readable.get()) is not None:
                server, connection, address = turn
                try:
                    server.process_request_thread(connection, address)
                except (
                    BaseException
                ):  # SystemExit, too: it would end a thread of its own, and there is only this one
                    logger.exception("A connection from %s was lost.", address)
        finally:
            connections.close_all()  # they last longer than a request, as CONN_MAX_AGE may say
