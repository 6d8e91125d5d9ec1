"""A publication on the bus of this process that another process has asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..wspbus import Bus
from .database import fresh_connections
from .site import reasons


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of the listeners as JSON has them, or the reason why there are none."""

    results: list[Any] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication, and its outcome, which travels to another process."""

    bus: Bus
    channel: str
    args: list[Any]

    def run(self) -> Outcome:
        """Publish in this thread."""
        try:
            results = self.bus.publish(self.channel, *self.args)
        except (Exception, SystemExit) as error:  # the process that asks gets the error
            return Outcome(None, reasons(error))
        try:
            return Outcome(json.loads(json.dumps(results, allow_nan=False)))
        except (TypeError, ValueError, RecursionError) as unfit:
            reason = f"The result of {self.channel} cannot be sent to another process: {unfit}."
            return Outcome(None, reason)

    def begin(self, done: Callable[[Outcome], object]) -> None:
        """Publish in a thread of its own: a listener that hangs must not keep the caller."""
        name = f"Publish {self.channel}"
        threading.Thread(target=self._run_in_thread, args=(done,), name=name, daemon=True).start()

    def _run_in_thread(self, done: Callable[[Outcome], object]) -> None:
        with fresh_connections(ends=True):
            outcome = self.run()
        done(outcome)
