"""Joining the site from a program of PROCESSES: a management command that calls `bus.running`."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from types import FrameType

from ..successor.invocation import SITE
from .asking import RemoteSite
from .membership import Membership
from .process_bus import ProcessBus
from .record import Record, Stage
from .reports import Ready, Stopped
from .site import NoSite

LAST, FIRST = 100, 0
"""Priorities: after all other start listeners, and before all other stop listeners."""


class SiteOfProgram(RemoteSite):
    """The site, seen from a program that has joined it."""

    def __init__(self, pair: socket.socket) -> None:
        super().__init__(pair, "worker")
        self.pid = os.getpid()
        """The process that has joined; a child that it forks can join by itself."""


@contextlib.contextmanager
def joined(bus: ProcessBus) -> Iterator[None]:
    """Make this process one of its site during a block, if the site has started its program.

    A process that belongs to a site already, or whose bus runs, stays as it is.
    """
    pair = None if _belongs(bus) else pair_of_site()
    if pair is None:
        yield
        return
    record = Record.make(0)
    membership = Membership(bus, SiteOfProgram(pair), record)
    before = bus.site
    record.write_stacks_on_signal()
    membership.join()

    def report_ready() -> None:
        record.stage = Stage.SERVING
        membership.site.report(Ready(os.getpid()))

    def report_stop() -> None:
        membership.site.report(Stopped(os.getpid(), [], ""))

    bus.subscribe("start", report_ready, LAST, role="any")
    bus.subscribe("stop", report_stop, FIRST, role="any")
    try:
        with terminated_by_signal():
            yield
    finally:
        bus.unsubscribe("start", report_ready)
        bus.unsubscribe("stop", report_stop)
        bus.site = before
        membership.leave()


def _belongs(bus: ProcessBus) -> bool:
    runs = bus.state in (bus.states.STARTING, bus.states.STARTED)
    is_forked = isinstance(bus.site, SiteOfProgram) and bus.site.pid != os.getpid()
    return runs or not (is_forked or isinstance(bus.site, NoSite))


def pair_of_site() -> socket.socket | None:
    """Return the pair of sockets that joins this program with its site; None if there is none.

    A process that the program has started may have the variable, but another file under its number.
    """
    with contextlib.suppress(ValueError, OSError):
        descriptor, inode = map(int, os.environ.get(SITE, "").split(":"))
        status = os.fstat(descriptor)
        if stat.S_ISSOCK(status.st_mode) and status.st_ino == inode:
            return _pair(descriptor)
    return None


@functools.cache
def _pair(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)  # what this process executes is no part of the site
    return socket.socket(fileno=descriptor)


@contextlib.contextmanager
def terminated_by_signal() -> Iterator[None]:
    """Raise SystemExit at SIGTERM, so that stop listeners run; a handler of the program's own stays."""
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        if is_ours and signal.getsignal(signal.SIGTERM) is _exit:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
