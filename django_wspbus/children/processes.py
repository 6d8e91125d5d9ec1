"""The process of a child: started by this program, or by an earlier one of the same process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Protocol

from ..system.processes import descendants


class ChildProcess(Protocol):
    """The part of `subprocess.Popen` that the site uses."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...


class AdoptedProcess:
    """A child of this process that an earlier program of the process has started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        status = self._wait(0)
        assert status is not None
        return status

    def _wait(self, options: int) -> int | None:
        with self._lock:
            if self.returncode is None:
                try:
                    pid, status = os.waitpid(self.pid, options)
                except ChildProcessError:  # reaped elsewhere; `subprocess` takes that for 0, too
                    self.returncode = 0
                else:
                    self.returncode = os.waitstatus_to_exitcode(status) if pid else None
            return self.returncode


def kill_group(pid: int, *, ended: bool) -> None:
    """Kill a process and all that it has started. A signal handler or a watchdog may call this."""
    with contextlib.suppress(PermissionError):
        try:
            # Its process group outlives it as long as there is a process in it.
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # the group has ended, or the process is in the group of the site
            # The PID of a process that has ended may belong to another one.
            for each in () if ended else (pid, *descendants(pid)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(each, signal.SIGKILL)
