"""A process that the site has started in a process group of its own, until the end of that group."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from ..process.switchboard import Switchboard
from ..system.statuses import how_ended
from .processes import ChildProcess, kill_group


class ProcessGroup:
    """A process and all that it starts. ``changed()`` is called when it has ended, by the switchboard."""

    def __init__(self, process: ChildProcess, switchboard: Switchboard, changed: Callable[[], None]) -> None:
        self.process = process
        self.changed = changed
        self.spawned = time.monotonic()
        self.ended = False
        self.deadline: float | None = None
        """The time of `time.monotonic` at which it is killed; None before the order to exit."""
        self.dismissed_at = 0.0
        """The time of `time.monotonic` at which it got the order to exit."""
        self._switchboard = switchboard
        self._pidfd: int | None = None

    def watch(self) -> None:
        """Notice its end from now on, if the system reports it: see `reports_end`."""
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or an old kernel
            self._pidfd = os.pidfd_open(self.pid)
            self._switchboard.watch(self._pidfd, self._note_end)

    @property
    def reports_end(self) -> bool:
        """True if the system reports the end of the process."""
        return self._pidfd is not None

    def _note_end(self) -> None:
        if self._pidfd is not None:
            self._switchboard.forget(self._pidfd)
        if not self.ended:
            self.process.wait()  # it is no zombie for longer than this
            self.ended = True
            self.changed()

    # Its state

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.spawned

    @property
    def is_overdue(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def allowed(self) -> float:
        """Seconds that it had from the order to exit until the deadline."""
        return 0.0 if self.deadline is None else self.deadline - self.dismissed_at

    @property
    def ended_cleanly(self) -> bool:
        """True if it has ended without an error, as when systemd signals all processes of the site."""
        return self.process.poll() in (0, -signal.SIGTERM)

    def how_ended(self) -> str:
        return how_ended(self.process.wait())

    # Its end

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it has not ended."""
        if not self.ended:  # else its PID may be that of another process
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it and all processes that it has started. A signal handler or a watchdog may call this."""
        kill_group(self.pid, ended=self.ended)

    def close(self) -> None:
        """Kill the processes that are left, and release the descriptor."""
        self.kill()
        self.process.wait()
        self.ended = True
        if self._pidfd is not None:
            self._switchboard.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
