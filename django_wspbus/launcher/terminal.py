"""The terminal that the developer looks at, if there is one."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from typing import Any


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
        """Have it show again what is typed."""
        with contextlib.suppress(OSError, termios.error):  # it is gone, or another's now
            if self._settings is not None and os.tcgetpgrp(0) == os.getpgrp():
                termios.tcsetattr(0, termios.TCSANOW, self._settings)

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
