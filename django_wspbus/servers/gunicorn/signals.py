"""The signals of gunicorn's processes, which belong to the site."""

from __future__ import annotations

import signal

from ...plugins.signals import is_ignored

IGNORED = [name for name in ("SIGINT", "SIGUSR2") if is_ignored(name)]
"""The signals that this process ignored from its start. The site itself sends SIGUSR1, for the log files."""

HELD = (signal.SIGTERM, signal.SIGUSR1)
"""The signals by which the site ends a worker, and makes it reopen its log files."""


def ignore_signals() -> None:
    """Ignore SIGHUP, and the signals that this process ignored from its start: they are for the site process.

    gunicorn has its own handlers by now. It may not ignore SIGTERM, by which the site ends it.
    """
    for name in ("SIGHUP", *IGNORED):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def hold_signals() -> None:
    """Block the signals of the site before a fork.

    Without this, a signal after the fork, but before gunicorn installs the handlers of the worker, is lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def accept_signals() -> None:
    """Unblock the signals that came between `hold_signals` and now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
