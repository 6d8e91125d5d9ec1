"""The warm spare, as the launcher sees it: started once a site serves, and taken as the next site."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ...process.messages import Message
from ...system.statuses import how_ended
from ..launch import Libraries
from .child import Child


class Spares:
    """Starts a spare for the site that serves, and turns it into the next site.

    ``spawn()`` starts a process for an ``invocation``; ``say(line)`` shows the developer a line.
    """

    def __init__(self, invocation: Message, spawn: Callable[[], Child], say: Callable[[str], None]) -> None:
        self.current: Child | None = None
        self._invocation = invocation
        self._spawn = spawn
        self._say = say
        self._libraries = Libraries({}, [])
        self._left_out: list[str] = []
        self._said = ""

    def learn(self, libraries: Libraries | None) -> None:
        """Prepare a spare with the `Libraries` of the site that serves; None: do without a spare."""
        if libraries is None or libraries.obstacle is not None:
            self._disable(None if libraries is None else libraries.obstacle)
            return
        if libraries.preload != self._libraries.preload:
            self._left_out = []
            self.end()
        self._libraries = libraries
        if self.current is None:
            self._start()

    def hear(self, report: Message) -> None:
        """Take note of a spare's report: see `spare.Spare.prepare`."""
        if self.current is not None and "prepared" in report:
            self.current.started = True
            self._said = ""
        elif "left_out" in report:
            self._say(f"Warm spare does without {report['left_out']!r} of PRELOAD: {report['why']}.")
            self._left_out.append(report["left_out"])
            self.end()
            self._start()
        elif "obstacle" in report:
            self._disable(report["obstacle"])

    def take(self) -> Child | None:
        """Return the spare, as the next site; None if no spare is prepared."""
        if self.current is None:
            return None
        status = self.current.process.poll()
        if status is not None:
            self._disable(f"it {how_ended(status)}")
        if self.current is None or not self.current.started:
            return None
        taken, self.current = self.current, None
        taken.become_site()
        return taken

    def end(self) -> None:
        if self.current is not None:
            self.current.end()
            self.current = None

    def _disable(self, why: str | None) -> None:
        """Do without a spare until a site serves again; say why, unless that was said last."""
        self.end()
        if why is not None and why != self._said:
            self._said = why
            self._say(f"Warm spare disabled: {why}.")

    def _start(self) -> None:
        self.current = self._spawn()
        preload = [name for name in self._libraries.preload if name not in self._left_out]
        order = {"modules": self._libraries.modules, "preload": preload}
        with contextlib.suppress(OSError):  # it has died already: `take` says so
            self.current.link.post({"invocation": self._invocation, "prepare": order})
