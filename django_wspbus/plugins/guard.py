"""A guard that ends a site process which cannot react to signals because C code holds the GIL."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable

from ..process import guard_program
from ..wspbus import Bus
from ..wspbus.plugin import Plugin
from ..wspbus.sleepers import keep_signals, release_signals
from ..wspbus.watchdog import WITHOUT_GIL

BLOCKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
TIME_TO_START = 5.0
"""Seconds that the site waits for the guard to watch; the site serves without it afterwards."""


class Guard(Plugin):
    """A small process beside a site that serves in its own process.

    Python runs a signal handler only when it has the GIL. So a view that calls C code which holds the GIL
    would keep the site from exiting. But the interpreter writes the number of a signal to a socket even
    without the GIL. The guard reads it there, and ends the site once STOP_TIMEOUT has passed, or soon after a
    second signal.

    ``numbers``: the signals that ask for the exit. ``pids``: a list that holds the guard's PID while it runs.
    """

    role = "site"

    def __init__(self, bus: Bus, numbers: Iterable[int], pids: list[int]) -> None:
        super().__init__(bus)
        self.numbers = list(numbers)
        self.pids = pids
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is not None or not hasattr(select, "epoll") or self.bus.stop_timeout is None:
            return
        # The guard must survive signals that the shell or systemd sends to all processes of the site.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            self.process = self._spawn(keep_signals(), self.bus.stop_timeout + 2 * WITHOUT_GIL)
        except OSError as error:  # the site can serve without the guard
            self.bus.log(f"The guard against C code that holds the GIL did not start: {error}", level=30)
        else:
            self.pids.append(self.process.pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self.process is not None and self.process.stdout is not None:
            # A guard that saw its first two signals at once would take them for one request.
            with self.process.stdout as until_it_watches:
                select.select([until_it_watches], [], [], TIME_TO_START)

    start.priority = 31  # type: ignore[attr-defined]  # after privileges are dropped

    def _spawn(self, descriptor: int, timeout: float) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-I", "-S", guard_program.__file__]
        arguments = [os.getpid(), descriptor, timeout, *map(int, self.numbers)]
        return subprocess.Popen(
            [*program, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # the guard closes it once it watches
            pass_fds=[descriptor],
            process_group=0,
            cwd="/",  # so that no directory stays in use
            env={name: value for name, value in os.environ.items() if name.startswith("LD_")},
        )

    def end(self) -> None:
        """End the guard, before an exec or when the site no longer needs it."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
            self.pids.remove(process.pid)
            release_signals()

    def execv(self) -> None:
        self.end()

    def abort(self) -> None:
        if self.process is not None:
            self.process.kill()

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.end()
