"""Keep a site's sockets and children while the next program of its process fails to start."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from .invocation import Invocation
from .notification import ServiceManager, extended, status, watched

BOOTSTRAP = (
    "import sys; sys.path[:] = filter(None, sys.path); import json, os; start = int(sys.argv[1]); "
    "os.lseek(start, 0, 0); values = json.load(open(start, 'rb', closefd=False))['values']; "
    "exec(values['loader'])"
)
"""The code for ``python -c``. It needs no file of this package, as a deployment may have removed them."""

FIRST_INTERVAL = 1.0
"""Seconds between the first two attempts. Each failure doubles the interval."""

LONGEST_INTERVAL = 15.0
"""Seconds between two attempts at most."""

MARGIN = 5.0
"""Seconds that an attempt may take beyond its time, before the service manager ends the process."""

TRY_NOW = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
END = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class Kept:
    """The sockets and children that a `Keeper` keeps, and the attempts of programs to take them over."""

    variable: str
    """The value of the variable that leads to the state of the site."""
    descriptors: list[int]
    children: list[int]
    """The PIDs of the children."""
    files: list[tuple[str, int, int]]
    """(path, device, inode) of the files to remove at an exit."""
    ready_timeout: float
    """Seconds that an attempt may take."""
    stop_timeout: float
    """Seconds that the children have to end."""
    clients: list[int] = field(default_factory=list)
    """The descriptors of the clients that wait for the outcome of the restart."""
    failures: int = 0
    """The number of failed attempts."""
    status: int = 1
    """The status of the last one that failed."""
    reason: str = ""
    pause: float = 0
    """Seconds before the next attempt."""


class Keeper:
    """Executes the next program of a site's process until one takes over the sockets and children.

    ``start``: the descriptor of the file that `start.write_start` has written. The keeper updates what is
    ``kept`` there.
    """

    def __init__(self, start: int) -> None:
        self._start = start
        os.lseek(start, 0, os.SEEK_SET)
        with open(start, "rb", closefd=False) as file:
            self._written: dict[str, Any] = json.load(file)
        self.values: dict[str, Any] = self._written["values"]
        self.kept = Kept(**self.values["kept"])
        self._manager = ServiceManager(self.values["invocation"]["environment"])

    def copy(self) -> list[int]:
        """Duplicate the descriptors, because the next program may close them before it fails."""
        return [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 3) for each in self._descriptors()]

    def restore(self, copies: Sequence[int]) -> None:
        for copied, descriptor in zip(copies, self._descriptors(), strict=True):
            os.dup2(copied, descriptor)

    def _descriptors(self) -> list[int]:
        return [self._start, *self.kept.descriptors]

    def execute(self) -> NoReturn:
        """Execute the next program. While the system refuses that, wait and try again."""
        while True:
            try:
                self._execute()
            except OSError as error:
                self.note_failure(1, f"{error.strerror}: {error.filename or 'its command line'}")
            self.wait()

    def _execute(self) -> NoReturn:
        invocation = Invocation(**self.values["invocation"])
        os.chdir(invocation.directory)
        for descriptor in self._descriptors():
            os.set_inheritable(descriptor, True)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or None
                stream.flush()
        self._expect_attempt()
        interpreter = invocation.find_interpreter()
        words = [interpreter, *invocation.options, "-c", BOOTSTRAP, str(self._start), *invocation.command]
        os.execve(interpreter, words, invocation.environment | self.values["environment"])

    def _expect_attempt(self) -> None:
        """Tell the service manager how long the attempt, and the pause after it, may take."""
        seconds = self.kept.ready_timeout + LONGEST_INTERVAL + MARGIN
        is_watched = self._manager.watchdog(None) is not None
        self._manager.send(extended(seconds), *([watched(seconds)] if is_watched else []))

    def note_failure(self, code: int, reason: str) -> None:
        """Record a failed attempt, and print its reason unless the attempt before failed for the same one."""
        if reason != self.kept.reason:
            text = (
                f"The restarted site did not start, with status {code}: {reason}\n"
                "Its workers keep serving. The site tries again at intervals of up to "
                f"{LONGEST_INTERVAL:g} seconds, and at once on SIGHUP, SIGUSR1 or SIGUSR2.\n"
            )
            with contextlib.suppress(OSError):  # a closed terminal must not stop the site
                os.write(2, text.encode(errors="backslashreplace"))
        self.kept.pause = min(FIRST_INTERVAL * 2**self.kept.failures, LONGEST_INTERVAL)
        self.kept.failures += 1
        self.kept.status, self.kept.reason = code, reason
        self._manager.send(status(f"reloading: the restart failed, the workers serve: {reason}"))
        self._store()
        self._answer_clients()

    def _answer_clients(self) -> None:
        """Send the clients of the control socket the reason, as the last reply of its protocol."""
        text = f"The restarted site did not start. Its workers keep serving. {self.kept.reason}"
        line = json.dumps({"error": text, "status": 1}).encode() + b"\n"
        for descriptor in self.kept.clients:
            # The descriptor stays open, as the next program finds it in the state.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as client:
                client.setblocking(False)
                client.send(line)
                client.shutdown(socket.SHUT_RDWR)

    def _store(self) -> None:
        self.values["kept"] = asdict(self.kept)
        os.ftruncate(self._start, 0)
        os.lseek(self._start, 0, os.SEEK_SET)
        with open(self._start, "wb", closefd=False) as file:
            file.write(json.dumps(self._written).encode())

    def wait(self) -> None:
        """Wait until the next attempt is due, or end the site if a signal asks for that."""
        seconds = self.kept.pause
        if not seconds:
            return
        signals = (*TRY_NOW, *END)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        if hasattr(signal, "sigtimedwait"):
            received = signal.sigtimedwait(signals, seconds)
            if received is not None and received.si_signo in END:
                self.end()
        else:  # macOS
            time.sleep(seconds)
        self.kept.pause = 0
        self._store()

    def end(self) -> NoReturn:
        """End the children within ``stop_timeout``, and exit with the status of the last failure."""
        children = self.kept.children
        self._manager.send("STOPPING=1", extended(self.kept.stop_timeout + MARGIN), status("stopping"))
        deadline = time.monotonic() + self.kept.stop_timeout
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        while any(map(_is_running, children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in children:
            for kill in (os.killpg, os.kill):  # in a terminal, a child may be in the site's process group
                with contextlib.suppress(OSError):
                    kill(pid, signal.SIGKILL)
        for path, device, inode in self.kept.files:
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) == (device, inode):
                    os.unlink(path)
        os._exit(self.kept.status)


def _is_running(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False
