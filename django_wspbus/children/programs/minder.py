"""The process between the site and one program of PROCESSES: it runs the program, and ends all that it has started.

It is a program of its own, without Django, and lives as long as the program. Standard input is the site's end of
a pair of sockets: it reads one line with the order to stop from there, and the end of the site.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KILL_INTERVAL = 0.02
"""Seconds between two rounds of killing: a process may fork while it is being killed."""


def main() -> int:
    link, argv = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the program leaves behind becomes a child of this process
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the site decides
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    parent = os.getpid()
    program = os.fork()
    if program == 0:
        os.setpgid(0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(link)
        try:
            os.execvp(argv[0], argv)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
            os._exit(127)
    status = run(link, reader, program)
    end_all()
    return status


def run(link: int, signals: int, program: int) -> int:
    """Wait for the end of the program, or of the site; return the exit status for this process."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(signals, select.POLLIN)
    deadline: float | None = None
    while True:
        timeout = None if deadline is None else max(deadline - time.monotonic(), 0) * 1000
        events = dict(poll.poll(timeout))
        if deadline is not None and time.monotonic() >= deadline:
            return 128 + signal.SIGKILL
        if signals in events:
            os.read(signals, 4096)
        if link in events:
            order = os.read(link, 4096)
            if not order:  # the site has ended
                return 128 + signal.SIGKILL
            number, seconds = json.loads(order.splitlines()[-1])
            os.kill(program, number)
            deadline = time.monotonic() + seconds
        if (status := reap(program)) is not None:
            return status


def reap(program: int) -> int | None:
    """Reap what has ended; return the exit status of the program if that has."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def end_all() -> None:
    """Kill all processes that the program has started, and those that they have started, until none is left."""
    while True:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(KILL_INTERVAL)


def descendants(root: int) -> list[int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                pass
    found = {root}
    size = 0
    while len(found) != size:
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return list(found - {root})


if __name__ == "__main__":
    sys.exit(main())
