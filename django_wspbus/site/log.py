"""The log of the bus on the terminal, where the project's LOGGING does not show it."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time

from ..process.bus import bus


def show_log(verbosity: int) -> None:
    """Show what the bus logs from now on: with a ``--verbosity`` of 2, and of 3 its debug messages, too."""
    if verbosity > 1:
        level = logging.DEBUG if verbosity > 2 else logging.INFO
        bus.subscribe("log", functools.partial(show, level), role="any")


def show(least: int, message: str, level: int = logging.INFO) -> None:
    """Write a message of at least this level to stderr, unless LOGGING shows it."""
    if level >= least and not is_logged(level):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {message}\n")


def is_logged(level: int) -> bool:
    """Return whether the project's LOGGING shows what the bus logs at a level."""
    # Asked for each message: a wsgi.py applies LOGGING anew when it is imported.
    logger = logging.getLogger("django_wspbus")
    return logger.isEnabledFor(level) and (logger.hasHandlers() or level >= logging.WARNING)
