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

from ..conf.validation import BUS_METHODS
from ..process.guard_program import SAME_REQUEST
from ..wspbus import Bus
from ..wspbus.plugin import Plugin

DEFAULTS = {
    "SIGTERM": "exit",
    "SIGINT": "exit",
    "SIGUSR1": "graceful",
    "SIGUSR2": "restart",
}


class SignalHandler(Plugin):
    """Calls a bus method, or publishes on a channel, when a signal comes.

    ``handlers``: signal name -> method or channel, laid over the defaults; None leaves a signal
    alone. A signal that this process ignores since its start, as under nohup, stays ignored unless
    ``handlers`` names it. A handler only enqueues: the thread in ``bus.block()`` acts. A second signal that
    asks for the exit, more than a moment later, ends the process at once, with status 128 + its number.

    Over a restart no signal is lost or deadly: those that have not been acted on are left to the next
    program of this process, which gives what `leave` returned to its own handler as ``inherited``.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        handlers: Mapping[str, str | None] | None = None,
        *,
        daemonized: bool = False,
        inherited: tuple[int, list[int]] | None = None,
    ) -> None:
        super().__init__(bus)
        # A terminal that is closed hangs up on its processes; to anyone else it is a request.
        hangup = "restart" if daemonized or not _has_terminal() else "exit"
        defaults = {**DEFAULTS, "SIGHUP": hangup}
        self.handlers = {
            **{name: defaults[name] for name in defaults if not is_ignored(name)},
            **(handlers or {}),
        }
        self._previous: dict[int, Any] = {}
        self._told_to_exit: float | None = None
        self._unserved: list[int] = []
        self._inherited = inherited

    def subscribe(self) -> None:
        """Install the handlers; to be called in the main thread."""
        super().subscribe()
        self._pid = os.getpid()
        self._told_to_exit = None
        for name, action in self.handlers.items():
            if action is not None:
                number = getattr(signal, name)
                self._previous[number] = signal.signal(number, self._handle)
        self.bus.watch_exits()
        self._take_over()

    def _take_over(self) -> None:
        """Take what came for the program before; its signals are blocked until now."""
        inherited, self._inherited = self._inherited, None
        if inherited is not None:
            reader, blocked = inherited
            for number in os.read(reader, 4096).strip(b"\0"):
                signal.raise_signal(number)
            os.close(reader)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)

    def leave(self) -> tuple[int, list[int]]:
        """Hold all signals for the next program, to which an exec is to follow.

        Returns the end of a pipe, to be passed on, and the numbers of the signals that are blocked.
        """
        blocked = list(self._previous)
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        # Another thread may still take one: then the interpreter writes its number here, at once.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        os.write(writer, bytes([0, *self._unserved]))
        return reader, blocked

    def unsubscribe(self) -> None:
        """Restore the handlers that were there before."""
        super().unsubscribe()
        self.bus.unwatch_exits()
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
            self.bus.expect_exit()
        self._unserved.append(number)
        self.bus.defer(partial(self._act, number, action))

    def _act(self, number: int, action: str) -> None:
        self.bus.log(f"Caught signal {signal.Signals(number).name}: {action}.")
        if action in ("graceful", "restart"):
            # What comes of it is logged; there is nobody else to tell.
            self.bus.request(action, lambda error: self._unserved.remove(number))
            return
        try:
            if action in BUS_METHODS:
                method: Callable[[], None] = getattr(self.bus, action)
                method()
            else:
                self.bus.publish(action)
        finally:
            self._unserved.remove(number)

    def _end_at_once(self, name: str, number: int) -> None:
        with contextlib.suppress(OSError):  # nobody reads it
            os.write(2, f"Caught {name} again: ending at once.\n".encode())
        try:
            self.bus.publish("abort")
        finally:
            os._exit(128 + number)


def is_ignored(name: str) -> bool:
    """Return whether this process ignores a signal: nohup and a shell's ``trap '' HUP`` hand that down."""
    return signal.getsignal(getattr(signal, name)) is signal.SIG_IGN


def _has_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
