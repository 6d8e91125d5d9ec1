"""The terminal that the developer looks at, if there is one, and what children have to do with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""What the keys of a terminal, and its end, send to every process in the foreground."""

ALONE: dict[str, Any] = {"stdin": subprocess.DEVNULL, "process_group": 0}
"""Options of `subprocess.Popen` for a process without an input, to which the keys send no signals."""


class Terminal:
    """Remembers the settings of the terminal, which a debugger that is ended may leave behind changed."""

    def __init__(self) -> None:
        self._settings: list[Any] | None = None
        with contextlib.suppress(OSError, termios.error):  # there is none
            self._settings = termios.tcgetattr(0)

    @property
    def is_there(self) -> bool:
        return self._settings is not None

    def restore(self) -> None:
        """Put the settings back, so that the terminal shows again what is typed."""
        with contextlib.suppress(OSError, termios.error):  # it is gone, or another's now
            if self._settings is not None and is_in_foreground():
                termios.tcsetattr(0, termios.TCSANOW, self._settings)

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed terminal must not stop the site
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def is_in_foreground() -> bool:
    """Whether this process may read from the terminal, whose keys send it signals."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # there is no terminal
        return False


@contextlib.contextmanager
def options_of_child(*, reads: bool) -> Iterator[dict[str, Any]]:
    """Yield the options of `subprocess.Popen` for a child of the site, to be started within the block.

    A child that ``reads``, as a debugger in it does, shares the terminal of a site in the foreground: it is
    in the same process group. The keys are for the site, which ends its children. Any other child has a
    group of its own and no input. A terminal with ``stty tostop`` would stop it as soon as it writes.

    All that is blocked here stays blocked in the child and in what it starts. That SIGTTOU is ignored would
    not do: gunicorn has a handler for it.
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
