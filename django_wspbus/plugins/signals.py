"""Signals as calls of the bus."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

from ..plugin import Plugin
from ..wspbus import Bus

SAME_REQUEST = 0.1
"""Seconds: timeout(1), and what forwards signals, tell a process and then the whole of its group."""

METHODS = ("start", "stop", "graceful", "restart", "exit")
DEFAULTS = {
    "SIGTERM": "exit",
    "SIGINT": "exit",
    "SIGUSR1": "graceful",
    "SIGUSR2": "restart",
}


class SignalHandler(Plugin):
    """Calls a bus method, or publishes on a channel, when a signal comes.

    ``handlers``: signal name -> method or channel, laid over the defaults; None leaves a signal
    alone. A handler only enqueues: the thread in ``bus.block()`` acts. A second signal that asks
    for the exit, more than a moment later, ends the process at once, with status 128 + its number.
    """

    role = "site"

    def __init__(
        self, bus: Bus, handlers: Mapping[str, str | None] | None = None, *, daemonized: bool = False
    ) -> None:
        super().__init__(bus)
        # A terminal that is closed hangs up on its processes; to anyone else it is a request.
        hangup = "restart" if daemonized or not _has_terminal() else "exit"
        self.handlers = {**DEFAULTS, "SIGHUP": hangup, **(handlers or {})}
        self._previous: dict[int, Any] = {}
        self._told_to_exit: float | None = None

    def subscribe(self) -> None:
        """Install the handlers; to be called in the main thread."""
        super().subscribe()
        self._pid = os.getpid()
        self._told_to_exit = None
        for name, action in self.handlers.items():
            if action is not None:
                number = getattr(signal, name)
                self._previous[number] = signal.signal(number, self._handle)

    def unsubscribe(self) -> None:
        """Restore the handlers that were there before."""
        super().unsubscribe()
        while self._previous:
            number, previous = self._previous.popitem()
            # None: installed by something other than Python, which can not be restored.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # forked off the site process, and no part of it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        name = signal.Signals(number).name
        action = self.handlers[name] or ""
        if action == "exit":
            now = time.monotonic()
            if self._told_to_exit is not None and now - self._told_to_exit > SAME_REQUEST:
                self._end_at_once(name, number)
            self._told_to_exit = self._told_to_exit or now
        self.bus.defer(partial(self._act, name, action))

    def _act(self, name: str, action: str) -> None:
        self.bus.log(f"Caught signal {name}: {action}.")
        if action in METHODS:
            method: Callable[[], None] = getattr(self.bus, action)
            method()
        else:
            self.bus.publish(action)

    def _end_at_once(self, name: str, number: int) -> None:
        with contextlib.suppress(OSError):  # nobody reads it
            os.write(2, f"Caught {name} again: ending at once.\n".encode())
        try:
            self.bus.publish("abort")
        finally:
            os._exit(128 + number)


def _has_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
