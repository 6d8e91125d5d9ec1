"""Work at intervals, in a thread that starts and stops with the bus."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..process.database import close_all_connections, fresh_connections
from ..system.functions import check_function
from ..wspbus import Bus
from ..wspbus.plugin import Plugin

F = TypeVar("F", bound=Callable[[], Any])


class BackgroundTask(threading.Thread):
    """A thread that calls ``function()`` every ``period`` seconds until it is cancelled.

    The first call comes after one period. If a call fails, even with SystemExit, the error is logged and the
    calls go on. A call that takes longer than the period delays the next one; missed calls are not made up
    for. Django's old database connections are closed before and after each call, and all of the thread's own
    at its end.
    """

    def __init__(self, bus: Bus, period: float, function: Callable[[], Any], name: str | None = None) -> None:
        # A daemon thread, because it must not keep a process alive that never stops its bus.
        super().__init__(name=name or _name(function), daemon=True)
        self.bus = bus
        self.period = _positive(period)
        self.function = function
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Make no further call. A running call continues to its end."""
        self._cancelled.set()

    def run(self) -> None:
        due = time.monotonic() + self.period
        while not self._cancelled.wait(max(0, due - time.monotonic())):
            self._call()
            due = max(due + self.period, time.monotonic())
        close_all_connections()

    def _call(self) -> None:
        try:
            with fresh_connections():
                self.function()
        except BaseException:  # SystemExit would end the thread, and with it all further calls
            with contextlib.suppress(BaseException):  # a log listener may raise SystemExit as well
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
        if self.thread is None or not self.thread.is_alive():  # not alive in a forked child
            self.thread = BackgroundTask(self.bus, self.period, self.callback, self.name)
            self.thread.start()

    start.priority = 70  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Stop the thread; wait for a running call, unless that call itself stops the bus."""
        thread, self.thread = self.thread, None
        if thread is not None:
            thread.cancel()
            if thread is not threading.current_thread():
                thread.join()

    stop.priority = 30  # type: ignore[attr-defined]


def every(period: float, *, role: str | None = None, name: str | None = None) -> Callable[[F], F]:
    """Decorate a function to be called every ``period`` seconds while the process's bus is STARTED.

    ``role``: "worker" (the default) for each process that serves, "site" for once per site, "leader" for once
    in the fleet. ValueError for another period or role, TypeError for a function that cannot be called like
    this.
    """
    from ..process.bus import bus

    _positive(period)

    def decorate(function: F) -> F:
        check_function(function, "@every")
        Monitor(bus, function, period, name, role).subscribe()
        return function

    return decorate


def _name(function: Callable[..., Any]) -> str:
    return f"every {getattr(function, '__qualname__', repr(function))}"


def _positive(period: float) -> float:
    is_number = isinstance(period, int | float) and not isinstance(period, bool)
    if not is_number or not 0 < period <= threading.TIMEOUT_MAX:
        raise ValueError(f"A period must be a number of seconds above 0, not {period!r}.")
    return period
