"""What answers in a project's place while its code does not boot: a program of its own, without Django.

The launcher starts it, and sends it the error, the listening sockets, and what to watch. It ends with the
status 3 when a file has changed, and with 0 when it is told to stop, or the launcher is gone.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

from ...process.messages import RELAUNCH, Link, Message
from ..launch import TIME_TO_TELL
from ..watching.files import FileWatch
from .answer import AGAIN, Answers, Report
from .connection import Connection, States
from .hosts import own_hosts
from .place import mentioned

RETRY = signal.SIGUSR2
"""Has it end as if a file had changed."""

MOST_CONNECTIONS = 200
"""So many that some systems have descriptors left for looking into folders."""

TIME_TO_END = 0.2
"""Seconds in which what has begun to ask is answered, once a file has changed."""


def main(descriptor: int) -> None:
    """Serve the error that comes over a socket of the launcher; raises SystemExit with the status."""
    # Signals and the watching thread say so here, so that the loop has one place to wait in.
    waker, wakened = socket.socketpair()
    for end in (waker, wakened):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, RETRY):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    launcher = Link(socket.socket(fileno=descriptor), "The launcher")
    with selectors.DefaultSelector() as selector, closing(launcher), waker, wakened:
        status = Program(launcher, selector, waker).run(wakened)
        signal.set_wakeup_fd(-1)
    sys.exit(status)


class Program:
    """The loop: the launcher, the listening sockets, and the connections."""

    def __init__(self, launcher: Link, selector: selectors.BaseSelector, waker: socket.socket) -> None:
        self._launcher = launcher
        self._selector = selector
        self._waker = waker
        self._connections: dict[Connection, int] = {}
        self._listeners: list[socket.socket] = []
        self._probed: set[socket.socket] = set()
        """Listening sockets of probes, which say no more than that the site does not start."""
        self._is_changing = False
        self._changed: list[str] | None = None
        self._seen: dict[str, str] = {}
        self._end: float | None = None
        self._status: int | None = None

    def run(self, wakened: socket.socket) -> int:
        self._selector.register(wakened, selectors.EVENT_READ, self._wake)
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
        with suppress(OSError):  # it is gone
            self._launcher.finish(TIME_TO_TELL)
        return self._status

    def _wake(self, wakened: socket.socket) -> None:
        numbers = set(wakened.recv(4096)) - {0}
        if numbers - {RETRY}:
            self._status = 0
            return
        if RETRY in numbers:
            self._changed = self._changed or []
        if self._is_changing or self._changed is not None:
            self._take_no_more()
        if self._changed is not None and self._end is None:
            self._begin_to_end(self._changed)

    def _receive(self, launcher: Link) -> None:
        messages = launcher.receive()
        if messages is None:
            self._status = 0
            return
        for message, descriptors in messages:
            self._open(message, [socket.socket(fileno=descriptor) for descriptor in descriptors])

    def _open(self, message: Message, sockets: list[socket.socket]) -> None:
        title, text = message["report"]["title"], message["report"]["text"]
        watch = message["watch"]
        try:
            root = message["root"] or os.getcwd()
        except FileNotFoundError:
            root = None
        report = Report(title, text, message["debug"], root or "/", message["hosts"])
        self._answers = Answers(report, lambda: signal.raise_signal(RETRY))
        self._closed = Answers(replace(report, is_public=False))
        paths = [os.path.join(root or "/", path) for path in (*watch["files"], *mentioned(text))]
        files = FileWatch(paths, watch["dirs"], root, watch.get("poll"))
        changed, self._seen = files.since(message["since"], message["seen"])
        threading.Thread(target=self._watch, args=(files, changed), name="Files", daemon=True).start()
        self._listeners = sockets
        self._probed = {sockets[index] for index in message["probed"]}
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def _watch(self, files: FileWatch, changed: list[str]) -> None:
        with closing(files):
            changed = changed or files.wait()
            self._is_changing = True
            self._wake_up()
            changed = files.settle(changed)
        if self._changed is None:
            self._changed = changed
        self._wake_up()

    def _wake_up(self) -> None:
        try:
            self._waker.send(b"\0")
        except OSError:  # closed: the program ends anyway
            pass

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
        """Give up a connection, as otherwise nobody else has a turn."""
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
        if connection in self._connections:  # else it has been forgotten in this very turn
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

    def _take_no_more(self) -> None:
        """Accept no further connections: they wait in the queue, and the next program answers them."""
        for listener in self._listeners:
            self._selector.unregister(listener)
            listener.close()
        self._listeners = []

    def _begin_to_end(self, changed: list[str]) -> None:
        """Close idle connections; give requests that have begun, and new connections, `TIME_TO_END`."""
        now = time.monotonic()
        self._end = now + TIME_TO_END
        self._selector.unregister(self._launcher)
        with suppress(OSError, ValueError):  # the launcher is gone; more files than a message may have
            self._launcher.post({"changed": changed, "seen": self._seen})
        for connection in list(self._connections):
            if connection.state is States.HELD:
                connection.end(AGAIN)
                self._follow(connection)
            elif connection.state is States.IDLE and now - connection.opened > TIME_TO_END:
                self._proceed(connection)  # a request may have come meanwhile
                if connection.state is States.IDLE:
                    connection.end()
                    self._follow(connection)
