"""The program of the error page: it serves without Django while the project does not boot.

The launcher starts it, and sends it the error and the listening sockets. When a file changes, the launcher
sends "retry", and the program ends with status 3. It ends with status 0 after a signal, or if the launcher
has ended.
"""

from __future__ import annotations

import errno
import selectors
import signal
import socket
import sys
import time
from contextlib import closing
from dataclasses import replace
from functools import partial

from ...process.messages import RELAUNCH, Link
from ...system.waker import Waker
from ..launch import ErrorReport
from .answer import AGAIN, Answers
from .connection import Connection, States
from .hosts import own_hosts

MOST_CONNECTIONS = 200
"""Connections at the same time: fewer than the descriptors that any system gives a process."""

TIME_TO_END = 0.2
"""Seconds for answers to requests that have begun when the program is to end."""


def main(descriptor: int) -> None:
    """Serve the error that comes over a socket of the launcher, and exit with the status."""
    waker = Waker()
    signal.set_wakeup_fd(waker.writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    launcher = Link(socket.socket(fileno=descriptor), "The launcher")
    with selectors.DefaultSelector() as selector, closing(launcher), closing(waker):
        status = Program(launcher, selector).run(waker)
        signal.set_wakeup_fd(-1)
    sys.exit(status)


class Program:
    """The loop over the launcher's link, the listening sockets and the connections."""

    def __init__(self, launcher: Link, selector: selectors.BaseSelector) -> None:
        self._launcher = launcher
        self._selector = selector
        self._connections: dict[Connection, int] = {}
        self._listeners: list[socket.socket] = []
        self._probed: set[socket.socket] = set()
        """Listening sockets of the probes. Their clients learn only that the site does not start."""
        self._end: float | None = None
        self._status: int | None = None

    def run(self, waker: Waker) -> int:
        self._selector.register(waker, selectors.EVENT_READ, self._wake)
        self._selector.register(self._launcher, selectors.EVENT_READ, self._receive)
        while self._status is None:
            for key, _ in self._selector.select(self._timeout()):
                if isinstance(key.data, Connection):
                    self._proceed(key.data)
                else:
                    key.data(key.fileobj)
            self._expire()
        for connection in list(self._connections):
            connection.end()
            self._forget(connection)
        for listener in self._listeners:
            listener.close()
        return self._status

    def _wake(self, waker: Waker) -> None:
        waker.clear()
        self._status = 0

    def _receive(self, launcher: Link) -> None:
        messages = launcher.receive()
        if messages is None:
            self._status = 0
            return
        for message, descriptors in messages:
            if "retry" in message:
                self._begin_to_end()
            else:
                sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
                self._open(ErrorReport(**message), sockets)

    def _open(self, report: ErrorReport, sockets: list[socket.socket]) -> None:
        self._answers = Answers(report, self._begin_to_end)
        self._closed = Answers(replace(report, is_public=False))
        self._listeners = sockets
        self._probed = {sockets[index] for index in report.probed}
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, self._accept)

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._connections:
                self._forget_oldest()
            return
        if len(self._connections) >= MOST_CONNECTIONS:
            self._forget_oldest()
        self._add(sock, self._closed if listener in self._probed else self._answers)

    def _forget_oldest(self) -> None:
        """Close the oldest connection, so that a new client gets an answer."""
        self._forget(next(iter(self._connections)))

    def _add(self, sock: socket.socket, answers: Answers) -> None:
        own = own_hosts(sock)
        connection = Connection(sock, partial(answers.answer, own=own), partial(answers.holds, own=own))
        self._connections[connection] = connection.events
        self._selector.register(sock, connection.events, connection)

    def _forget(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        del self._connections[connection]
        connection.socket.close()

    def _proceed(self, connection: Connection) -> None:
        if connection in self._connections:  # an earlier event of this turn may have closed it
            connection.proceed(time.monotonic())
            self._follow(connection)

    def _follow(self, connection: Connection) -> None:
        if connection.state is States.CLOSED:
            self._forget(connection)
        elif connection.events != self._connections[connection]:
            self._connections[connection] = connection.events
            self._selector.modify(connection.socket, connection.events, connection)

    # Time

    def _timeout(self) -> float | None:
        moments = [self._end, *(connection.deadline for connection in self._connections)]
        soonest = min((moment for moment in moments if moment is not None), default=None)
        return None if soonest is None else max(0.0, soonest - time.monotonic())

    def _expire(self) -> None:
        now = time.monotonic()
        is_over = self._end is not None and now >= self._end
        for connection in list(self._connections):
            if is_over or (connection.deadline is not None and now >= connection.deadline):
                connection.expire(now)
                self._follow(connection)
        if self._end is not None and (is_over or all(each.is_done for each in self._connections)):
            self._status = RELAUNCH

    # Its end

    def _begin_to_end(self) -> None:
        """Close idle connections; give requests that have begun, and new connections, `TIME_TO_END`."""
        if self._end is not None:
            return
        now = time.monotonic()
        self._end = now + TIME_TO_END
        for listener in self._listeners:  # the next program answers the clients in their queues
            self._selector.unregister(listener)
            listener.close()
        self._listeners = []
        for connection in list(self._connections):
            if connection.state is States.HELD:
                connection.end(AGAIN)
                self._follow(connection)
            elif connection.state is States.IDLE and now - connection.opened > TIME_TO_END:
                self._proceed(connection)  # a request may have come in the meantime
                if connection.state is States.IDLE:
                    connection.end()
                    self._follow(connection)
