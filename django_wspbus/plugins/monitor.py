"""Work at intervals, in a thread that starts and stops with the bus."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.apps import apps
from django.db import close_old_connections

from ..wspbus import Bus
from ..wspbus.plugin import Plugin

F = TypeVar("F", bound=Callable[[], Any])


class BackgroundTask(threading.Thread):
    """A thread that calls ``function()`` every ``period`` seconds until it is cancelled.

    The first call comes after one period. A call that fails, be it by SystemExit, is logged, and the
    next comes all the same; a call that takes longer than the period delays those after it, and none is
    made up for. Django's old database connections are closed before and after each.
    """

    def __init__(self, bus: Bus, period: float, function: Callable[[], Any], name: str | None = None) -> None:
        # A daemon, as it must not keep a process alive in which nobody stops the bus.
        super().__init__(name=name or _name(function), daemon=True)
        self.bus = bus
        self.period = _positive(period)
        self.function = function
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Call no more; a call that is under way goes on to its end."""
        self._cancelled.set()

    def run(self) -> None:
        due = time.monotonic() + self.period
        while not self._cancelled.wait(max(0, due - time.monotonic())):
            self._call()
            due = max(due + self.period, time.monotonic())

    def _call(self) -> None:
        try:
            _close_connections()
            try:
                self.function()
            finally:
                _close_connections()
        except BaseException:  # SystemExit, too, is for this call: in a thread it would end all that follow
            with contextlib.suppress(BaseException):  # a log listener may raise it as well
                self.bus.log(f"Error in {self.name}", level=40, traceback=True)


class Monitor(Plugin):
    """Calls ``callback()`` every ``period`` seconds while the bus is STARTED."""

    def __init__(
        self,
        bus: Bus,
        callback: Callable[[], Any],
        period: float = 60,
        name: str | None = None,
        role: str | None = None,
    ) -> None:
        super().__init__(bus)
        self.callback = callback
        self.period = _positive(period)
        self.name = name or _name(callback)
        self.role = role
        self.thread: BackgroundTask | None = None

    def start(self) -> None:
        if self.thread is None or not self.thread.is_alive():  # it may be that of a forking parent
            self.thread = BackgroundTask(self.bus, self.period, self.callback, self.name)
            self.thread.start()

    start.priority = 70  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Stop at once; a call that is under way is waited for, unless it is the one that stops us."""
        thread, self.thread = self.thread, None
        if thread is not None:
            thread.cancel()
            if thread is not threading.current_thread():
                thread.join()

    stop.priority = 30  # type: ignore[attr-defined]


def every(period: float, *, role: str | None = None, name: str | None = None) -> Callable[[F], F]:
    """Decorate a function to be called every ``period`` seconds while the process's bus is STARTED.

    ``role``: "worker" if left out: in each process that serves; "site": once per site.
    """
    from ..process.bus import bus

    def decorate(function: F) -> F:
        Monitor(bus, function, period, name, role).subscribe()
        return function

    return decorate


def _close_connections() -> None:
    if apps.ready:  # on a bare bus there may be no Django that could have any
        close_old_connections()


def _name(function: Callable[..., Any]) -> str:
    return f"every {getattr(function, '__qualname__', repr(function))}"


def _positive(period: float) -> float:
    if not 0 < period <= threading.TIMEOUT_MAX:
        raise ValueError(f"A period must be a number of seconds above 0, not {period!r}.")
    return period
