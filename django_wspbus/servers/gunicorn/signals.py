"""The signals of gunicorn's processes, which belong to the site."""

from __future__ import annotations

import signal

from ...plugins.signals import is_ignored

IGNORED = [name for name in ("SIGINT", "SIGUSR1", "SIGUSR2") if is_ignored(name)]
"""The signals that this process ignored from its start."""


def ignore_signals() -> None:
    """Ignore SIGHUP, and the signals that this process ignored from its start: they are for the site process.

    gunicorn has its own handlers by now. It may not ignore SIGTERM, by which the site ends it.
    """
    for name in ("SIGHUP", *IGNORED):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def hold_term() -> None:
    """Block SIGTERM before a fork.

    Without this, a signal after the fork, but before gunicorn installs the handlers of the worker, is lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def accept_term() -> None:
    """Unblock a SIGTERM that came between `hold_term` and now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
