"""The plugin that reports the real state of the site to systemd, or another manager with its protocol."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ..health.report import Condition, Report
from ..successor.notification import ServiceManager, extended, status, watched
from ..wspbus import Bus
from ..wspbus.plugin import Plugin

MARGIN = 2.0
"""Seconds that a start or an exit may take beyond the time that the site allows itself for it."""

SHORTEST_BEAT = 0.05
"""Seconds between two signs of life at least."""


class Systemd(Plugin):
    """Reports the state of the site, for units of ``Type=notify``, and shows that its bus does not hang.

    ``condition()`` returns the condition of the site, and ``call_later(seconds, function)`` calls a function
    in another thread. ``watchdog``: the seconds within which the manager wants a sign of life, or None. The
    signs come from the thread that moves the bus. ``time_to_start``, ``time_to_stop``: the seconds that a
    start, a reload or a restart, and an exit may take. ``replaces``: whether this program, or this process,
    replaces the one that the manager has started.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        manager: ServiceManager,
        condition: Callable[[], Condition],
        call_later: Callable[[float, Callable[[], None]], None],
        *,
        watchdog: float | None,
        time_to_start: float,
        time_to_stop: float,
        replaces: bool,
    ) -> None:
        super().__init__(bus)
        self._manager = manager
        self._condition = condition
        self._call_later = call_later
        self._watchdog = watchdog
        self._time_to_start = time_to_start + MARGIN
        self._time_to_stop = time_to_stop + MARGIN
        self._replaces = replaces
        self._shown = ""
        self._is_ready = False
        self._is_reloading = replaces  # the program before has reported the restart
        self._beats = False

    def start(self) -> None:
        self._send("starting", extended(self._time_to_start))

    start.priority = 5  # type: ignore[attr-defined]

    def look(self) -> None:
        """Report what has changed since the last look, also that the bus is STARTED."""
        if self.bus.state is not self.bus.states.STARTED:
            return
        condition = self._condition()
        if condition.state == "reloading":
            self._report_reload(condition)
        elif not self.bus.exit_asked:
            self._report_ready(condition)

    def _report_reload(self, condition: Condition) -> None:
        text = Report(True, condition).text()
        if self._is_reloading:
            self._show(text)
            return
        moment = f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"
        self._is_reloading = self._send(text, "RELOADING=1", moment, extended(self._time_to_start))

    def _report_ready(self, condition: Condition) -> None:
        text = Report(True, condition).text()
        if self._is_ready and not self._is_reloading:
            self._show(text)
            return
        fields = [f"MAINPID={os.getpid()}"] if self._replaces else []
        if self._watchdog is not None:  # the program before a restart has extended it
            fields.append(watched(self._watchdog))
        self._is_ready = self._send(text, "READY=1", *fields)
        self._is_reloading = self._is_reloading and not self._is_ready
        if not self._beats and self._watchdog is not None:
            self._beats = True
            self._beat()

    def _beat(self) -> None:
        if self._beats and self._watchdog is not None:
            self._manager.send("WATCHDOG=1")
            pause = max(self._watchdog / 2, SHORTEST_BEAT)
            self._call_later(pause, lambda: self.bus.defer(self._beat))
            self.look()  # last: an error must not end the beats

    def stop(self) -> None:
        """Report a restart or an exit. From now on the bus itself ends a listener that hangs."""
        if self.bus.execv:
            self._report_reload(self._condition())
            self._manager.send(extended(self._time_to_stop), *self._watched_less())
        elif self.bus.exit_asked:
            text = Report(True, self._condition()).text()
            self._send(text, "STOPPING=1", extended(self._time_to_stop), *self._watched_less())
        else:
            self._show("stopped")

    stop.priority = 0  # type: ignore[attr-defined]  # before the drain

    def _watched_less(self) -> list[str]:
        return [] if self._watchdog is None else [watched(max(self._watchdog, self._time_to_stop))]

    def _show(self, text: str) -> None:
        if text != self._shown:
            self._send(text)

    def _send(self, text: str, *fields: str) -> bool:
        """Send fields and a text for ``systemctl status``; return whether the manager has them."""
        is_sent = self._manager.send(*fields, status(text))
        if is_sent:
            self._shown = text
        return is_sent

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self._beats = False
        self._manager.close()
