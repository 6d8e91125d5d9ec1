"""The duty of PID 1, as which a site runs in a container: to reap the orphans."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..wspbus import Bus
from ..wspbus.plugin import Plugin

WAITING_TIME = 1.0
"""Seconds in which the code that has forked a process may wait for it, once it has ended."""

INTERVAL = 0.25
"""Seconds between two looks at the zombies, while there are any."""

PROC = Path("/proc")

_ZOMBIE = re.compile(rb"^State:\tZ.*^NSpid:([\t\d]+)$", re.MULTILINE | re.DOTALL)


def start_timer(seconds: float, function: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.name = "Reaper"
    timer.daemon = True
    timer.start()
    return timer


class Reaper(Plugin):
    """Reaps the orphans of a container, and leaves the status of other processes to those that wait for it.

    A zombie counts as an orphan after `WAITING_TIME`, with three exceptions: the site itself waits for
    those of ``own()``, and the plugin makes a `subprocess.Popen` (made while it is subscribed) or a
    `multiprocessing.Process` fetch the status of its process. The child of an ``os.fork()``
    looks like an orphan: wait for it in time.

    ``later(seconds, function)`` calls a function after a while, in any thread. ``pid``: the process that has
    the duty; in any other the plugin does nothing.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        later: Callable[[float, Callable[[], None]], object] = start_timer,
        own: Callable[[], Iterable[int]] = tuple,
        *,
        pid: int = 1,
    ) -> None:
        super().__init__(bus)
        self.later = later
        self.own = own
        self.pid = pid
        self._previous: Any = None
        self._is_active = False
        self._seen: dict[int, float] = {}  # PID -> when it was first seen as a zombie
        self._is_awaited = False
        self._timer: object = None
        self._popens = Popens()

    def subscribe(self) -> None:
        """Install the handler of SIGCHLD, if this is the process; to be called in the main thread."""
        if os.getpid() == self.pid and not self._is_active:
            super().subscribe()
            self._is_active = True
            self._popens.watch()
            self._previous = signal.signal(signal.SIGCHLD, self._handle)

    def unsubscribe(self) -> None:
        """Restore the handler that was there before."""
        super().unsubscribe()
        if self._is_active:
            self._is_active = False
            self._popens.stop_watching()
            # None: something other than Python installed it, and Python cannot restore it.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if self._previous is None else self._previous)
            if isinstance(self._timer, threading.Timer):
                self._timer.cancel()
            self._seen, self._is_awaited = {}, False

    def start(self) -> None:
        self.bus.defer(self.reap)  # orphans may be older than the plugin, as after a restart

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self.pid:  # a process that was forked off this one has the handler, too
            self.bus.defer(self.reap)
        if callable(self._previous):
            self._previous(number, frame)

    def reap(self) -> None:
        """Reap the zombies that are old enough; look again later while others are left."""
        if self._is_awaited or not self._is_active:
            return
        found, now = zombies(), time.monotonic()
        self._seen = {pid: self._seen.get(pid, now) for pid in found}
        old = {pid for pid, since in self._seen.items() if now - since >= WAITING_TIME}.difference(self.own())
        if old:
            poll_multiprocessing()
            for pid in old - self._popens.poll(old):
                with contextlib.suppress(ChildProcessError):  # other code has reaped it
                    os.waitpid(pid, os.WNOHANG)
                    self.bus.log(f"Reaped process {pid}.", level=10)
        if self._seen:  # others may be behind those that are gone now: see `zombies`
            self._wait()

    def _wait(self) -> None:
        self._is_awaited = True
        try:
            self._timer = self.later(INTERVAL, self._come_back)
        except BaseException:  # such as no free thread: the next signal is another chance
            self._is_awaited = False
            raise

    def _come_back(self) -> None:
        self._is_awaited = False
        self.bus.defer(self.reap)


def zombies() -> set[int]:
    """Return the PIDs of the children that have ended, and have not been reaped.

    The kernel shows the first of them only, or that of a given PID, so this tries the PIDs of all zombies in
    /proc. Where that cannot be read, a zombie is seen once those before it are gone.
    """
    first = _peek(os.P_ALL)
    if first is None:
        return set()
    return {first, *(number for number in _candidates() if _peek(os.P_PID, number))}


def _peek(kind: int, number: int = 0) -> int | None:
    try:
        found = os.waitid(kind, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # there is no such child
        return None
    return found.si_pid if found is not None else None


def _candidates() -> Iterator[int]:
    """Yield the PIDs of zombies in every namespace: /proc may be mounted for another one."""
    for path in PROC.glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # gone meanwhile
            match = _ZOMBIE.search(path.read_bytes())
            if match is not None:
                yield from map(int, match[1].split())


class Popens:
    """The `subprocess.Popen` objects that are made while it watches.

    Python keeps no list of them, and a process that was reaped elsewhere has the status 0 for its `Popen`.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[int, subprocess.Popen[Any]] = weakref.WeakValueDictionary()
        self._init: Any = None  # before `watch`
        self._watching_init: Any = None

    def watch(self) -> None:
        """Note each `Popen` that is made from now on."""
        known: Any = self._known
        init: Any = subprocess.Popen.__init__

        @functools.wraps(init)
        def watching_init(popen: Any, *args: Any, **kwargs: Any) -> None:
            known[id(popen)] = popen
            init(popen, *args, **kwargs)

        self._init, self._watching_init = init, watching_init
        subprocess.Popen.__init__ = watching_init  # type: ignore[assignment,method-assign]

    def stop_watching(self) -> None:
        if subprocess.Popen.__init__ is self._watching_init:  # else a wrapper of another package calls it
            subprocess.Popen.__init__ = self._init  # type: ignore[method-assign]

    def poll(self, pids: Collection[int]) -> set[int]:
        """Make the `Popen` objects of these processes fetch the status; return the PIDs that have one."""
        # A PID may be that of an earlier process, too.
        owners = [each for each in self._known.values() if each.pid in pids and each.returncode is None]
        for owner in owners:
            owner.poll()
        return {owner.pid for owner in owners}


def poll_multiprocessing() -> None:
    """Make each `multiprocessing.Process` that has ended fetch its status."""
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        active_children()
