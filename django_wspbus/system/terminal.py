"""The developer's terminal, if there is one, and how child processes share it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import termios
from collections.abc import Iterator
from typing import Any

KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""The signals that a terminal's keys, and its end, send to every process in the foreground."""

ALONE: dict[str, Any] = {"stdin": subprocess.DEVNULL, "process_group": 0}
"""Options of `subprocess.Popen` for a process without input that gets no signals from the keys."""


class Terminal:
    """Remembers the settings of the terminal, because a killed debugger may leave them changed."""

    def __init__(self) -> None:
        self._settings: list[Any] | None = None
        with contextlib.suppress(OSError, termios.error):  # there is none
            self._settings = termios.tcgetattr(0)

    @property
    def is_there(self) -> bool:
        return self._settings is not None

    def restore(self) -> None:
        """Restore the settings, so that the terminal echoes input again."""
        with contextlib.suppress(OSError, termios.error):  # it is gone, or belongs to another session
            if self._settings is not None and is_in_foreground():
                termios.tcsetattr(0, termios.TCSANOW, self._settings)

    def say(self, line: str) -> None:
        """Write a line to stderr."""
        # A closed terminal must neither stop the site nor, by what is left in a buffer, change its status.
        with contextlib.suppress(OSError):
            os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def is_in_foreground() -> bool:
    """Return whether this process is in the foreground of the terminal, and so may read from it."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # there is no terminal
        return False


@contextlib.contextmanager
def options_of_child(*, reads: bool) -> Iterator[dict[str, Any]]:
    """Yield the options of `subprocess.Popen` for a child of the site. Start the child within the block.

    ``reads``: the child reads from the terminal, as a debugger does. If the site is in the foreground, the
    child then shares its process group. The keys' signals are blocked in the child, because the site reacts
    to them and ends its children.

    Any other child gets its own process group and no input. SIGTTOU is blocked in it, because a terminal
    with ``stty tostop`` would stop the child as soon as it writes. Ignoring SIGTTOU would not be enough:
    gunicorn installs a handler for it. The processes that the child starts inherit the blocked signals.
    """
    options: dict[str, Any] = {"stdin": None}
    blocked: tuple[signal.Signals, ...] = KEYS
    if not (reads and is_in_foreground()):
        options = dict(ALONE)
        blocked = (signal.SIGTTOU,) if any(map(os.isatty, (0, 1, 2))) else ()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield options
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
