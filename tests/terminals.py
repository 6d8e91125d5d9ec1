"""Run a program in a terminal: read its screen, and press keys."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import threading
from typing import Any, Self

from .processes import RunningSite
from .projects import Project

CONTROL_C = "\x03"
LOCAL_MODES = 3

# The leader of the session acquires the terminal, so that the keys send it signals.
TAKE = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal(RunningSite):
    """``manage.py runbus`` of a project, in the foreground of its own terminal.

    ``stops_output``: the terminal stops background processes that write to it (``stty tostop``).
    """

    def __init__(
        self, project: Project, *arguments: str, stops_output: bool = False, **variables: str
    ) -> None:
        self.stops_output = stops_output
        env = {"TERM": "xterm", **project.environment, **variables}
        super().__init__(*arguments, manage=project.manage, env=env, cwd=project.root)

    def __enter__(self) -> Self:
        self._keyboard, terminal = pty.openpty()
        if self.stops_output:
            settings = self.settings()
            settings[LOCAL_MODES] |= termios.TOSTOP
            termios.tcsetattr(self._keyboard, termios.TCSANOW, settings)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TAKE, *self.command],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )
        finally:
            os.close(terminal)
        self._reader = threading.Thread(target=self._read, name=f"Terminal of {self.command}", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.kill()
        os.close(self._keyboard)

    def press(self, key: str) -> None:
        os.write(self._keyboard, key.encode())

    def settings(self) -> list[Any]:
        """Return the settings of the terminal, as `termios.tcgetattr` has them."""
        return termios.tcgetattr(self._keyboard)

    def _read(self) -> None:
        with open(os.dup(self._keyboard), errors="replace", newline="\n") as screen:
            try:
                for line in screen:
                    with self._changed:
                        self.lines.append(line.rstrip("\r\n"))
                        self._changed.notify_all()
            except OSError:  # the last program of the terminal has ended
                pass
        with self._changed:
            self._at_end = True
            self._changed.notify_all()
