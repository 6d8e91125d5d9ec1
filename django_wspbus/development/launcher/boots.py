"""The boots of the site under the launcher, one after another, and the outcome of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot: its ``number``, and the moment, of `time.monotonic`, ``since`` which it has its state."""

    number: int = 0
    pid: int = 0
    state: Literal["starting", "serving", "failed", "ended"] = "starting"
    reason: str = ""
    """The reason of a failure in one line."""
    text: str = ""
    """The reason in full, with its traceback."""
    since: float = field(default_factory=time.monotonic)


class Boots:
    """The last boot. One thread changes it, and others wait for the changes."""

    def __init__(self) -> None:
        self.last = Boot()
        self._changed = threading.Condition()

    def begin(self, pid: int) -> None:
        self._note(Boot(self.last.number + 1, pid))

    def note_started(self) -> None:
        self._note(replace(self.last, state="serving", since=time.monotonic()))

    def note_failed(self, reason: str, text: str) -> None:
        self._note(replace(self.last, state="failed", reason=reason, text=text, since=time.monotonic()))

    def end(self) -> None:
        """Note that no boot follows, because the launcher exits."""
        self._note(replace(self.last, state="ended", since=time.monotonic()))

    def _note(self, boot: Boot) -> None:
        with self._changed:
            self.last = boot
            self._changed.notify_all()

    def wait(self, condition: Callable[[Boot], bool], seconds: float) -> Boot | None:
        """Wait until the last boot fulfils a condition; return it, or None once the seconds are over."""
        with self._changed:
            return self.last if self._changed.wait_for(lambda: condition(self.last), seconds) else None
