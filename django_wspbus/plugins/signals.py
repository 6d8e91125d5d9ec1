"""Signal handlers that call the bus."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

from ..conf.signals import BUS_METHODS
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
    """Calls a bus method, or publishes on a channel, when a signal arrives.

    ``handlers``: signal name -> method or channel, merged with the defaults; None leaves a signal alone. A
    signal that this process has ignored since its start, as under nohup, stays ignored unless ``handlers``
    names it. A handler only enqueues; the thread in ``bus.block()`` acts. A second signal that asks for the
    exit, more than `SAME_REQUEST` seconds later, ends the process at once with status 128 + its number.

    A restart neither loses a signal nor dies of one: `hand_over` returns the pending signals, and the next
    program of this process passes them to its handler as ``handed_over``.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        handlers: Mapping[str, str | None] | None = None,
        *,
        daemonized: bool = False,
        handed_over: tuple[int, list[int]] | None = None,
    ) -> None:
        super().__init__(bus)
        # A closed terminal sends SIGHUP to its processes. Without a terminal, an operator sends it.
        hangup = "restart" if daemonized or not _has_terminal() else "exit"
        defaults = {**DEFAULTS, "SIGHUP": hangup}
        self.handlers = {
            **{name: defaults[name] for name in defaults if not is_ignored(name)},
            **(handlers or {}),
        }
        self._previous: dict[int, Any] = {}
        self._exit_asked: float | None = None
        self._pending: list[int] = []
        self._handed_over = handed_over

    def subscribe(self) -> None:
        """Install the handlers. Call it in the main thread."""
        super().subscribe()
        self._pid = os.getpid()
        self._exit_asked = None
        for name, action in self.handlers.items():
            if action is not None:
                number = getattr(signal, name)
                self._previous[number] = signal.signal(number, self._handle)
        self.bus.watchdog.watch_exits()
        self._take_over()

    def _take_over(self) -> None:
        """Raise the signals that the program before has handed over, and unblock the signals."""
        handed_over, self._handed_over = self._handed_over, None
        if handed_over is not None:
            reader, blocked = handed_over
            for number in os.read(reader, 4096).strip(b"\0"):
                signal.raise_signal(number)
            os.close(reader)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)

    def hand_over(self) -> tuple[int, list[int]]:
        """Block all signals and keep them for the next program. Call it just before the exec.

        Return the reading end of a pipe with pending signals, and the numbers of the blocked signals.
        """
        blocked = list(self._previous)
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        # Another thread may still receive a signal; then the interpreter writes its number to this pipe.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        os.write(writer, bytes([0, *self._pending]))
        return reader, blocked

    def unsubscribe(self) -> None:
        """Restore the previous handlers."""
        super().unsubscribe()
        self.bus.watchdog.unwatch_exits()
        while self._previous:
            number, previous = self._previous.popitem()
            # None: a handler not installed from Python, which Python cannot restore.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # in a forked process, which is not the site
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        name = signal.Signals(number).name
        action = self.handlers[name] or ""
        if action == "exit":
            now = time.monotonic()
            if self._exit_asked is not None and now - self._exit_asked > SAME_REQUEST:
                self._end_at_once(name, number)
            self._exit_asked = self._exit_asked or now
            self.bus.watchdog.expect_exit()
        self._pending.append(number)
        self.bus.defer(partial(self._act, number, action))

    def _act(self, number: int, action: str) -> None:
        self.bus.log(f"Caught signal {signal.Signals(number).name}: {action}.")
        if action in ("graceful", "restart"):
            # The bus logs the outcome, and a signal has no sender to report to.
            self.bus.request(action, lambda error: self._pending.remove(number))
            return
        try:
            if action in BUS_METHODS:
                method: Callable[[], None] = getattr(self.bus, action)
                method()
            else:
                self.bus.publish(action)
        finally:
            self._pending.remove(number)

    def _end_at_once(self, name: str, number: int) -> None:
        with contextlib.suppress(OSError):  # stderr may be closed
            os.write(2, f"Caught {name} again: ending at once.\n".encode())
        try:
            self.bus.publish("abort")
        finally:
            os._exit(128 + number)


def is_ignored(name: str) -> bool:
    """Return whether this process ignores a signal, as under nohup or a shell's ``trap '' HUP``."""
    return signal.getsignal(getattr(signal, name)) is signal.SIG_IGN


def _has_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
