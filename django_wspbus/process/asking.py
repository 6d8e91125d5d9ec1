"""`bus.site` in a process of a child server: it asks the site process over links of its own."""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .messages import Link, Message, await_event
from .pairs import hand_in
from .reports import Hello, Report, as_message
from .site import Site, SiteUnreachable

SILENCE = 60.0
"""Seconds for which the site may be silent; more than a restart takes to execute its next program."""

PING_INTERVAL = 15.0
"""Seconds after which a process that waits for an answer asks whether the site is there."""

MOST_IDLE = 4
"""Links that are kept open between two questions."""


class RemoteSite(Site):
    """The site, from a process of a child server.

    Each question has a link to itself while it waits for its answer, so that threads do not wait for each
    other, and the answer to a thread that is gone ends with its link. A process that is forked off makes
    links of its own. ``role``: what the process is, "worker", "master" or "other".
    """

    def __init__(self, pair: socket.socket, role: str) -> None:
        pair.setblocking(False)
        self._pair = pair
        self._role = role
        self._open: set[Link] = set()
        self._idle: deque[Link] = deque()
        self._telling: Link | None = None
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """In a forked process: close the copies of the parent's links, which would hide the parent's end."""
        for link in self._open:
            link.close()
        self._open = set()
        self._idle.clear()
        self._telling = None
        self._role = "other"

    def play(self, role: str) -> None:
        """Tell the site what this process is from now on."""
        self._forget()
        self._role = role
        with suppress(OSError):  # the site is gone
            self._telling = self._connect(role)

    def ask(self, what: str, *args: Any) -> Any:
        try:
            with self._link() as link:
                link.send({"ask": what, "args": args}, timeout=SILENCE)
                reply = _await_reply(link)
        except OSError as error:
            raise SiteUnreachable(f"The site process does not answer: {error}") from error
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["result"]

    def tell(self, report: Report) -> None:
        """Send a report, which expects no answer; it is lost if the site is gone."""
        for _ in range(2):  # the site ends a connection to a process that did not read for long
            with suppress(OSError):
                if self._telling is None:
                    self._telling = self._connect(self._role)
                self._telling.send(as_message(report), timeout=SILENCE)
                return
            self._close(self._telling)
            self._telling = None

    @contextmanager
    def _link(self) -> Iterator[Link]:
        """Give the calling thread a link to itself."""
        link = self._take_idle() or self._connect("asker")
        try:
            yield link
        except BaseException:  # the answer may still come, and no thread waits for it
            self._close(link)
            raise
        if len(self._idle) < MOST_IDLE:
            self._idle.append(link)
        else:
            self._close(link)

    def _take_idle(self) -> Link | None:
        with suppress(IndexError):
            while True:
                link = self._idle.pop()
                if link.receive() is not None:
                    return link
                self._close(link)  # the site has closed it
        return None

    def _connect(self, role: str) -> Link:
        link = hand_in(self._pair, "it", SILENCE)
        self._open.add(link)
        link.send(as_message(Hello(role, os.getpid())), timeout=SILENCE)
        return link

    def _close(self, link: Link | None) -> None:
        if link is not None:
            self._open.discard(link)
            link.close()


def _await_reply(link: Link) -> Message:
    """Return the answer, however long the site works on it, while the site says that it is there."""
    silent = 0.0
    while silent < SILENCE:
        if not await_event(link, select.POLLIN, PING_INTERVAL):
            silent += PING_INTERVAL
            link.post({"ping": True})
            continue
        silent = 0.0
        messages = link.receive()
        if messages is None:
            raise ConnectionError("it ended the connection")
        for message, _ in messages:
            if "pong" not in message:
                return message
    raise TimeoutError(f"it has said nothing for {SILENCE:g} seconds; it is stopped, or hangs")
