"""`bus.site` in a process of a child server: it sends its requests to the site process over links."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .exchange import Error, Reply, Request, Result, read_reply, request_as_message
from .listening import Listening
from .messages import Link, Message, await_event
from .pairs import hand_in
from .record import Record
from .reports import Hello, Report, as_message
from .site import Site, SiteUnreachable

SITE_TIMEOUT = 60.0
"""Seconds without any message from the site; a restart takes less to execute the next program."""

PING_INTERVAL = 15.0
"""Seconds between two pings of a process that waits for an answer."""

MOST_IDLE = 4
"""Links that a process keeps open between two requests."""


class RemoteSite(Site):
    """The site, seen from a process of a child server.

    Each request has a link to itself until its answer comes, so that threads do not wait for each other.
    If the thread goes away, its link is closed, and the answer is lost with it. A forked process opens new
    links. ``role``: "worker", "master" or "other".
    """

    def __init__(self, pair: socket.socket, role: str) -> None:
        pair.setblocking(False)
        self._pair = pair
        self._role = role
        self._open: set[Link] = set()
        self._idle: deque[Link] = deque()
        self._for_reports: Link | None = None
        self._listening: Listening | None = None
        self._record: Record | None = None
        self._turn = threading.RLock()  # of the link for reports; a signal handler may interrupt its owner
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Close the parent's links in a forked process: open copies would hide the parent's end."""
        for link in self._open:
            link.close()
        self._open = set()
        self._idle.clear()
        if self._listening is not None:
            self._listening.forget()
        self._for_reports = self._listening = None
        self._record = None
        self._turn = threading.RLock()  # the parent's may be held
        self._role = "other"

    def announce_role(self, role: str, record: Record | None = None) -> None:
        """Report to the site which role this process has from now on, and hand it the record."""
        self._forget()
        self._role = role
        self._record = record
        with suppress(OSError):  # the site has ended
            self._for_reports = self._connect(role)

    def close(self) -> None:
        """Close all links, so that the site takes this process for one that has ended."""
        for link in list(self._open):
            link.cut_off()  # which ends the thread that listens
        if self._listening is not None:
            self._listening.join(SITE_TIMEOUT)
        self._forget()

    def ask(self, request: str, *args: Any) -> Any:
        return self.ask_within(SITE_TIMEOUT, request, *args)

    def ask_within(self, timeout: float, request: str, *args: Any) -> Any:
        """Ask the site; `SiteUnreachable` if it sends nothing for ``timeout`` seconds."""
        try:
            with self._link() as link:
                message = request_as_message(Request(request, {"args": list(args)}))
                link.send(message, timeout=timeout)
                reply = _await_reply(link, timeout)
        except OSError as error:
            raise SiteUnreachable(f"The site process does not answer: {error}") from error
        if isinstance(reply, Error):
            raise RuntimeError(reply.text)
        return reply.value if isinstance(reply, Result) else None

    def report(self, report: Report) -> None:
        """Send a report, which gets no answer; it is lost if the site has ended."""
        for _ in range(2):  # the site closes a link whose process reads nothing for long
            link = None
            with suppress(OSError):
                link = self._link_for_reports()
                link.send(as_message(report), timeout=SITE_TIMEOUT)
                return
            with self._turn:
                if link is not None and self._for_reports is link:  # else another thread has closed it
                    self._close(link)
                    self._for_reports = None

    def _link_for_reports(self) -> Link:
        with self._turn:
            if self._for_reports is None:
                self._for_reports = self._connect(self._role)
            return self._for_reports

    def listen(self, hear: Callable[[Message], object]) -> None:
        """Call a function with each request that the site sends to this process, in a new thread."""
        with suppress(OSError):  # the site has ended
            self._listening = Listening(self._connect("listener"), hear)

    def report_listening(self, report: Report) -> None:
        """Send a report that the site may answer by an order, which it can once it has read this report."""
        if self._listening is not None:
            with suppress(OSError):  # the site has ended
                self._listening.link.send(as_message(report), timeout=SITE_TIMEOUT)

    def offer(self, report: Report) -> None:
        """Send a report without waiting; it may be dropped while the site does not read."""
        with suppress(OSError):  # the site has ended
            with self._turn:
                if self._listening is None:  # in a process that takes no orders, such as a forked one
                    self._listening = Listening(self._connect("other"), lambda message: None)
                listening = self._listening
            listening.offer(as_message(report))

    @contextmanager
    def _link(self) -> Iterator[Link]:
        """Yield a link that only the calling thread uses."""
        link = self._take_idle() or self._connect("asker")
        try:
            yield link
        except BaseException:  # an answer that still comes must not reach another request
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
        # The name completes an error: "The site process does not answer: it took no connection".
        link = hand_in(self._pair, "it", SITE_TIMEOUT)
        self._open.add(link)
        descriptors = [self._record.descriptor] if self._record is not None and role == self._role else []
        link.send(as_message(Hello(role, os.getpid())), descriptors, timeout=SITE_TIMEOUT)
        return link

    def _close(self, link: Link | None) -> None:
        if link is not None:
            self._open.discard(link)
            link.close()


def _await_reply(link: Link, timeout: float) -> Reply:
    """Return the answer; wait for it as long as the site answers pings."""
    silent, interval = 0.0, min(PING_INTERVAL, timeout)
    while silent < timeout:
        if not await_event(link, select.POLLIN, interval):
            silent += interval
            link.post({"ping": True})
            continue
        silent = 0.0
        messages = link.receive()
        if messages is None:
            raise ConnectionError("it closed the connection")
        for message, _ in messages:
            if "pong" not in message:
                return read_reply(message)
    raise TimeoutError(f"it has sent nothing for {timeout:g} seconds; it is stopped, or hangs")
