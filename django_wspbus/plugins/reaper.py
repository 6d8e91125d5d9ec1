"""The duty of PID 1, as which a site runs in a container: to reap the orphans."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..wspbus import Bus
from ..wspbus.plugin import Plugin

GRACE = 1.0
"""Seconds in which a parent may still ask for the status of a child that has ended."""
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
    """Reaps what is reparented to PID 1, and takes no status from anybody who asks for it in time.

    A zombie that is a second old is an orphan, unless it is one of ``own()``, whose owner reaps it,
    or that of a `subprocess.Popen` or a `multiprocessing.Process`, which then learns its status.
    The child of an ``os.fork()`` cannot be told from an orphan: whoever forks has that second to wait.

    ``later(seconds, function)`` calls a function after a while, in any thread. ``pid``: which process
    has the duty; in any other the plugin does nothing.
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

    def subscribe(self) -> None:
        """Install the handler of SIGCHLD, if this is the process; to be called in the main thread."""
        if os.getpid() == self.pid and not self._is_active:
            super().subscribe()
            self._is_active = True
            self._previous = signal.signal(signal.SIGCHLD, self._handle)

    def unsubscribe(self) -> None:
        """Restore the handler that was there before."""
        super().unsubscribe()
        if self._is_active:
            self._is_active = False
            # None: installed by something other than Python, which can not be restored.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if self._previous is None else self._previous)
            if isinstance(self._timer, threading.Timer):
                self._timer.cancel()
            self._seen, self._is_awaited = {}, False

    def start(self) -> None:
        self.bus.defer(self.reap)  # orphans may be older than the plugin, as after a restart

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self.pid:  # and not forked off it
            self.bus.defer(self.reap)
        if callable(self._previous):
            self._previous(number, frame)

    def reap(self) -> None:
        """Reap the zombies that are old enough; come back while there are any."""
        if self._is_awaited or not self._is_active:
            return
        found, now = zombies(), time.monotonic()
        self._seen = {pid: self._seen.get(pid, now) for pid in found}
        old = {pid for pid, since in self._seen.items() if now - since >= GRACE}.difference(self.own())
        if old:
            for pid in old - tell_owners(old):
                with contextlib.suppress(ChildProcessError):  # its owner was as quick
                    os.waitpid(pid, os.WNOHANG)
                    self.bus.log(f"Reaped process {pid}.", level=10)
        if self._seen:  # there may be others behind those that are gone now
            self._wait()

    def _wait(self) -> None:
        self._is_awaited = True
        try:
            self._timer = self.later(INTERVAL, self._come_back)
        except BaseException:  # no thread can be started, say: the next signal is another chance
            self._is_awaited = False
            raise

    def _come_back(self) -> None:
        self._is_awaited = False
        self.bus.defer(self.reap)


def zombies() -> set[int]:
    """Return the PIDs of the children that have ended, and have not been reaped.

    The kernel shows the first of them only, or that of a given PID. So all numbers are tried that
    /proc has for any zombie; where it cannot be read, a zombie is seen once those before it are gone.
    """
    first = _peek(os.P_ALL)
    if first is None:
        return set()
    return {first, *(number for number in _rumoured() if _peek(os.P_PID, number))}


def _peek(kind: int, number: int = 0) -> int | None:
    try:
        found = os.waitid(kind, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # there is no such child
        return None
    return found.si_pid if found is not None else None


def _rumoured() -> Iterator[int]:
    """Yield the PIDs of zombies, in whatever namespace: /proc may be that of another than ours."""
    for path in PROC.glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # gone meanwhile
            match = _ZOMBIE.search(path.read_bytes())
            if match is not None:
                yield from map(int, match[1].split())


def tell_owners(pids: Collection[int]) -> set[int]:
    """Have those objects reap which stand for one of these children; return the PIDs of such."""
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        active_children()  # reaps, and keeps the status
    # Not isinstance(), which evaluates what is lazy.
    objects = (each for each in gc.get_objects() if issubclass(type(each), subprocess.Popen))
    # One whose __init__() has failed has neither; and a PID may have been used before.
    owners = [each for each in objects if getattr(each, "pid", None) in pids and each.returncode is None]
    for owner in owners:
        owner.poll()
    return {owner.pid for owner in owners}
