"""A program of PROCESSES that the site keeps running: one instance of an entry."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from ...conf import ProcessSettings
from ...system.backoff import FIRST, MOST, Backoff
from ...wspbus import Refusal
from .instance import Instance

HEALTHY_LIFETIME = 10.0
"""Seconds after which a program counts as healthy. It has no other sign, and booting takes some of them."""


class Program:
    """Keeps one instance of a program running. All methods but properties are for the main thread.

    ``launch(changed)`` starts it; ``later(seconds, function)`` calls a function in the main thread;
    ``changed()`` is called, in any thread, when something has changed.
    """

    def __init__(
        self,
        settings: ProcessSettings,
        number: int,
        launch: Callable[[Program], Instance],
        later: Callable[[float, Callable[[], None]], None],
        log: Callable[[str, int], None],
    ) -> None:
        self.settings = settings
        self.number = number
        self.instance: Instance | None = None
        """The run that has not ended yet."""
        self.is_wanted = False
        """True while the site is to keep it running."""
        self.starts = 0
        """The number of times that it was started, or could not be."""
        self.trouble: str | None = None
        """The reason why it does not run, or has not run for long."""
        self.due: float | None = None
        """The time of `time.monotonic` at which it is started again; None if it runs, or is not to."""
        self._launch = launch
        self._later = later
        self._log = log
        self._backoff = Backoff()
        self._said: str | None = None
        self._is_replaced = False

    @property
    def name(self) -> str:
        """Its alias, and the number of the instance if there are several."""
        alias = self.settings.alias
        return f"{alias}.{self.number}" if self.settings.count > 1 else alias

    @property
    def state(self) -> str:
        """Its state: "starting", "running", "stopping", "stopped", or "waiting" for its next start."""
        instance = self.instance
        if instance is None or instance.ended:
            return "waiting" if self.is_wanted else "stopped"
        if instance.deadline is not None:
            return "stopping"
        return "running" if instance.runs else "starting"

    @property
    def is_healthy(self) -> bool:
        """True if it has run for long enough to count as healthy."""
        return self.instance is not None and self.instance.age >= HEALTHY_LIFETIME

    # Orders

    def start(self) -> None:
        """Start it, and keep it running."""
        self.is_wanted = True
        if self.instance is None:
            self._start()

    def replace(self) -> None:
        """Stop it, and start it anew once it has ended; at once if it does not run."""
        self.is_wanted = True
        if self.instance is None:
            self._start()
        elif not self._is_replaced:
            self._is_replaced = True
            self._stop_within(self.settings.stop_timeout)

    def stop(self, seconds: float | None = None) -> None:
        """Stop it for good; it is killed after STOP_TIMEOUT, or ``seconds`` if these are fewer."""
        self.is_wanted, self.due = False, None
        timeout = self.settings.stop_timeout
        self._stop_within(timeout if seconds is None else min(seconds, timeout))

    def _stop_within(self, seconds: float) -> None:
        if self.instance is not None:
            self.instance.stop(seconds)
            self._later(seconds, self.look)

    # Its life

    def look(self) -> None:
        """Act upon its end, if it has ended."""
        instance = self.instance
        if instance is None:
            return
        if instance.ended:
            self._note_end(instance)
        elif self.trouble is not None and self.is_healthy and instance.deadline is None:
            self.trouble = self._said = None
            self._log(f"{self._subject} runs again, process {instance.program}.", 20)

    @property
    def _subject(self) -> str:
        return f"The program {self.name!r}"

    def _start(self) -> None:
        self.due = None
        self._is_replaced = False
        if not self.is_wanted or self.instance is not None:
            return
        self.starts += 1
        try:
            self.instance = self._launch(self)
        except Refusal as refusal:
            self._fail(f"could not be started: {refusal}", worked=False)
            return
        if self.trouble is not None:
            self._later(HEALTHY_LIFETIME, self.look)

    def _note_end(self, instance: Instance) -> None:
        was_asked, age = instance.deadline is not None, instance.age
        was_killed = instance.is_overdue
        self.instance = None
        instance.close()
        for failed in instance.progress.failed_stops:
            self._log(f"{self._subject}: {failed}", 40)
        if was_asked and was_killed:
            self._log(f"{self._subject} was killed: it had not stopped after {instance.allowed:.3g} s.", 40)
        if was_asked:
            self._start()
        else:
            self._fail(instance.how_ended(), worked=age >= HEALTHY_LIFETIME)

    def _fail(self, why: str, *, worked: bool) -> None:
        if worked:
            self._said = None
        self.trouble = f"it {why}"
        if self.is_wanted:
            wait = max(self._backoff.note(worked=worked), FIRST)
            self.due = time.monotonic() + wait
            again = f"starting it again, at intervals of up to {MOST:g} s"
            self._say(f"{self._subject} {why.rstrip('.')}; {again}.")
            self._later(wait, self._start)

    def _say(self, message: str) -> None:
        """Log a failure, unless it repeats the last one: a program may fail in the same way for hours."""
        same = re.sub(r"\d+", "N", message)
        if same != self._said:
            self._said = same
            self._log(message, 40)

    def adopt(self, instance: Instance) -> None:
        """Go on with an instance of the site before a restart."""
        self.instance = instance
        self.is_wanted = True
        self.starts += 1
