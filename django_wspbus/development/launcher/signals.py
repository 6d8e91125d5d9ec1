"""The signals that reach the launcher, as bytes on a socket for which its loop waits."""

from __future__ import annotations

import signal
from collections.abc import Container

from ...system.waker import Waker

FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Signals:
    """Handles signals from now on, but for those that this process ignores and that are not ``handled``."""

    def __init__(self, handled: Container[str]) -> None:
        self._waker = Waker()
        signal.set_wakeup_fd(self._waker.writer, warn_on_full_buffer=False)
        for name in (*FORWARDED, "SIGCHLD"):
            number = getattr(signal, name)
            is_ignored = name in FORWARDED and signal.getsignal(number) is signal.SIG_IGN
            if not is_ignored or name in handled:  # as under nohup; the site inherits it
                signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        return self._waker.fileno()

    def wake(self) -> None:
        """Wake up the loop, from another thread."""
        self._waker.wake()

    def take(self) -> bytes:
        """Return the numbers of the signals that have come."""
        return self._waker.clear()

    def close(self) -> None:
        self._waker.close()
