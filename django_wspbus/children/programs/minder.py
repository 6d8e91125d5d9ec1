"""The process between the site and a program of PROCESSES: it runs the program, and ends all that it starts.

It imports neither Django nor this package, and ends with its program, or with the site. All that the program
has started is below this process: orphans become its children (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

KILL_INTERVAL = 0.02
"""Seconds between two rounds of killing: a process may fork while it is being killed."""

TIME_TO_KILL = 1.5
"""Seconds after which it gives up on processes that do not end, such as those of another user."""

NOT_FOUND = 127
"""The status of a shell for a command that it does not find."""


def main(values: dict[str, Any]) -> NoReturn:
    """Run the program until it ends, or is ended; end with its status, or by the same signal.

    ``values``: "words" of its command line; "link": the descriptor of this end of a pair of sockets; "pair":
    the descriptor that the program gets; "stop_signal", a number; "stop_timeout".

    It writes the PID of the program to the link, as a line. An order is a line with the seconds that the
    program has to end after its stop signal; later ones can only shorten them. SIGTERM is the order with the
    seconds of "stop_timeout". At the end of the site, which closes the link, it kills at once.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        # A minder that is stopped (SIGSTOP) has to see the end of the site.
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGCONT))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    link = socket.socket(fileno=values["link"])
    link.set_inheritable(False)
    # Watchers of files, such as those of npm, end at the end of their input.
    stdin, _never_written = os.pipe()
    minder = os.getpid()
    program = os.fork()
    if program == 0:
        execute(values, minder, libc, stdin)
    os.close(values["pair"])
    link.send(b"%d\n" % program)
    status = Minder(link, reader, program, values["stop_signal"], values["stop_timeout"]).run()
    kill_all(program)
    end_like(status)


def execute(values: dict[str, Any], minder: int, libc: Any, stdin: int) -> NoReturn:
    """In the child: become the program."""
    os.setpgid(0, 0)
    if libc is not None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != minder:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_DFL)
    os.dup2(stdin, 0)
    words = values["words"]
    try:
        os.execvp(words[0], words)
    except OSError as error:
        os.write(2, f"{words[0]}: {error.strerror}\n".encode())
    os._exit(NOT_FOUND)


class Minder:
    """Waits for the end of the program, for orders, and for the end of the site."""

    def __init__(
        self, link: socket.socket, signals: int, program: int, stop_signal: int, stop_timeout: float
    ) -> None:
        self.link = link
        self.signals = signals
        self.program = program
        self.stop_signal = stop_signal
        self.stop_timeout = stop_timeout
        self.deadline: float | None = None

    def run(self) -> int:
        """Return the status of the program as `subprocess` has it: negative if a signal has ended it."""
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        poll.register(self.signals, select.POLLIN)
        while self.deadline is None or time.monotonic() < self.deadline:
            left = None if self.deadline is None else max(self.deadline - time.monotonic(), 0) * 1000 + 1
            events = dict(poll.poll(left))
            if self.signals in events and bytes([signal.SIGTERM]) in os.read(self.signals, 4096):
                self.stop(self.stop_timeout)
            if self.link.fileno() in events and not self.obey():
                break
            if (status := reap(self.program)) is not None:
                return status
        return -signal.SIGKILL

    def obey(self) -> bool:
        """Carry out the orders that have come; return False if the program is to be killed now."""
        try:
            orders = self.link.recv(4096)
        except ConnectionError:
            return False
        for order in orders.splitlines():
            self.stop(float(order))
        return bool(orders)

    def stop(self, seconds: float) -> None:
        """Send the program its stop signal, at the first order, and shorten its time."""
        if self.deadline is None:
            os.kill(self.program, self.stop_signal)
        self.deadline = min(time.monotonic() + seconds, self.deadline or float("inf"))


def reap(program: int) -> int | None:
    """Reap the children that have ended; return the status of the program if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == program:
            found = os.waitstatus_to_exitcode(status)


def kill_all(program: int) -> None:
    """Kill the program and all that it has started, until no process is left."""
    deadline = time.monotonic() + TIME_TO_KILL
    while time.monotonic() < deadline:
        if sys.platform != "linux":
            kill(os.killpg, program)
        for pid in descendants(os.getpid()):
            kill(os.kill, pid)
        reap(program)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        time.sleep(KILL_INTERVAL)


def kill(function: Any, pid: int) -> None:
    try:
        function(pid, signal.SIGKILL)
    except OSError:  # it has ended, or belongs to another user
        pass


def descendants(root: int) -> list[int]:
    """Return the processes below a process; none where there is no /proc."""
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    children: dict[int, list[int]] = {}
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):  # it has ended
            continue
        children.setdefault(parent, []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def end_like(status: int) -> NoReturn:
    """End with the status of the program, or by the signal that has ended it, without a core file."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(max(status, 0))
