"""The processes that the launcher starts, and the state of each, from its messages."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...process.messages import Link, Received, await_event
from ...successor.invocation import Invocation
from ..launch import Failure

ROOT = str(Path(__file__).parents[3])
# The folder of this package comes last, so that nothing in it hides a module of the standard library.
START = (
    "import sys; sys.path[:] = [path for path in sys.path if path] + [sys.argv[1], *sys.argv[3:]]; "
    "from django_wspbus.{module} import main; main({argument})"
)

Kind = Literal["site", "spare", "page"]
PROGRAMS: dict[Kind, str] = {
    "site": "development.site_program",
    "spare": "development.site_program",
    "page": "development.error_page",
}
"""The module of each kind of process. A spare becomes a site."""

TIME_TO_BOOT = 3.0
"""Seconds after which a boot is given up if a file changes: it may hang in a loop, a lock, or a prompt."""

ABANDONED_BOOT_TIMEOUT = 1.0
"""Seconds in which an abandoned boot has to end; then it is killed."""


@dataclass(slots=True, eq=False)
class Child:
    """A process, and the state that it has reported."""

    kind: Kind
    process: subprocess.Popen[bytes]
    link: Link
    began: int
    """The moment of its start, as `time.time_ns`. It may not have read files that were saved later."""
    is_warm: bool = False
    """True if it was a spare before."""
    running: bool = False
    """True once it runs the command."""
    handles_signals: bool = False
    started: bool = False
    """True once the site serves, or the spare has imported its libraries."""
    exiting: bool = False
    relaunching: bool = False
    stop_timeout: float = 25.0
    """STOP_TIMEOUT, once it is known."""
    ended: int | None = None
    """The exit status that it has announced."""
    failure: Failure | None = None
    """That of a boot, or the one that the error page shows."""
    hears: bool = True
    booted: int | None = None
    """The moment at which the site served, or the page started, as ``began``; None during the boot."""
    has_reported_files: bool = False
    """True once it has reported its files."""
    is_given_up: bool = False
    """True once the launcher has ended its boot because a file has changed."""
    boot_ends: float | None = field(default_factory=lambda: time.monotonic() + TIME_TO_BOOT)
    """The moment after which its boot counts as slow, or is killed if it was given up; None: it is slow."""
    born: float = field(default_factory=time.monotonic)
    """The beginning of its age. ``began`` is of the wall clock, as files have it, which may be set."""

    @property
    def age(self) -> float:
        """Seconds since it was started, or has served."""
        return time.monotonic() - self.born

    @property
    def serves(self) -> bool:
        """True if the site serves, and is not about to end."""
        return self.kind == "site" and self.started and not (self.exiting or self.relaunching)

    def note(self, name: str, value: Any) -> None:
        """Note a field of a message which concerns only this process: see `development.launch`."""
        match name:
            case "running" | "exiting" | "stop_timeout" | "ended":
                setattr(self, name, value)
            case "stale" | "relaunching":  # stale: its libraries have changed; start a new interpreter
                self.relaunching = True
            case "failed":
                self.failure = Failure(**value)

    def exit_status(self, status: int) -> int:
        """Return the status of the launcher, if this process has ended with one after a request to exit."""
        if self.exiting:
            return status
        return 0 if self.kind == "page" or self.relaunching or self.failure is not None else status

    @property
    def is_booting(self) -> bool:
        return self.kind == "site" and not self.started

    def boot_timeout(self) -> float | None:
        """Return the milliseconds until `is_slow` has to be called; None: there is no such time."""
        if not self.is_booting or self.boot_ends is None:
            return None
        return max(0.0, self.boot_ends - time.monotonic()) * 1000 + 1

    def is_slow(self) -> bool:
        """Return True if its boot, or the end of a boot that was given up, takes longer than it should."""
        return self.is_booting and (self.boot_ends is None or time.monotonic() >= self.boot_ends)

    def give_up(self) -> None:
        """Tell its boot to end, so that the launcher starts another one."""
        self.is_given_up = self.relaunching = True
        self.boot_ends = time.monotonic() + ABANDONED_BOOT_TIMEOUT
        if self.handles_signals:  # it may serve by now, and a signal would end it for good, with its sockets
            with contextlib.suppress(OSError):
                self.link.post({"again": True})
        else:
            self.process.terminate()

    def note_started(self) -> None:
        """Note that the site serves: its age does not depend on how long the boot has taken."""
        self.started = True
        self.booted = time.time_ns()
        self.born = time.monotonic()

    def become_site(self) -> None:
        """Turn the spare into the next site."""
        self.kind = "site"
        self.is_warm = True
        self.started = False
        self.began = time.time_ns()
        self.born = time.monotonic()
        self.boot_ends = self.born + TIME_TO_BOOT

    def receive(self) -> list[Received]:
        """Return the messages that have come."""
        messages = self.link.receive()
        self.hears = messages is not None
        return messages or []

    def unread(self) -> list[Received]:
        """Return the messages that have come and have not been received yet."""
        messages: list[Received] = []
        while self.hears and await_event(self.link, select.POLLIN, 0):
            messages += self.receive()
        return messages

    def end(self) -> None:
        """Kill it and close the link."""
        self.link.close()
        self.process.kill()
        self.process.wait()


def spawn(kind: Kind, invocation: Invocation, passed: Iterable[int]) -> Child:
    """Start a process of a kind; the descriptors ``passed`` keep their numbers."""
    ours, theirs = socket.socketpair()
    with theirs:
        program = START.format(module=PROGRAMS[kind], argument="int(sys.argv[2])")
        # An interpreter that starts would print tracebacks at Ctrl-C: each program unblocks SIGINT itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        words = [invocation.find_interpreter(), *invocation.options, "-c", program]
        try:
            process = subprocess.Popen(
                [*words, ROOT, str(theirs.fileno())],
                pass_fds=[theirs.fileno(), *passed],
                cwd=invocation.directory,
                env={**os.environ, "RUN_MAIN": "true"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return Child(kind, process, Link(ours, f"The {kind}"), time.time_ns())


def reap_orphans(own: Iterable[subprocess.Popen[bytes]]) -> None:
    """Reap the processes that have ended, but for our own, which keep their status.

    As PID 1 of a container the launcher gets every orphan in it.
    """
    processes = {process.pid: process for process in own}
    with contextlib.suppress(ChildProcessError, AttributeError):  # no children; no waitid, on macOS
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if found.si_pid in processes:
                processes[found.si_pid].poll()
            else:
                os.waitpid(found.si_pid, 0)
