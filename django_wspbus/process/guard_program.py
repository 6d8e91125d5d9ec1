"""The program of the guard. `plugins.guard` starts it by its path, so that it imports nothing else."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

SAME_REQUEST = 0.1
"""Seconds in which a second signal is the same request: timeout(1) signals the process, then its group."""

TIME_TO_REACT = 0.5
"""Seconds for the site to act on a second request itself."""

TIME_TO_WRITE_STACKS = 1.0
"""Seconds for the site to write the stacks of all threads after SIGABRT."""


def main(site: int, descriptor: int, timeout: float, numbers: list[int]) -> None:
    """End the process ``site`` if it still lives ``timeout`` seconds after one of the signals ``numbers``.

    ``descriptor``: a socket on which the interpreter of the site reports the number of each signal. The
    standard output is closed once this process watches it.
    """
    try:
        process = os.pidfd_open(site)
    except ProcessLookupError:  # the site has ended already
        return
    if os.getppid() != site:
        return
    events = select.epoll()
    events.register(process, select.EPOLLIN)
    # The guard only peeks, because the site reads the numbers from the same socket.
    wakeups = socket.socket(fileno=descriptor)
    events.register(wakeups, select.EPOLLIN | select.EPOLLET)
    os.close(1)
    first = deadline = None
    seen = 0
    while deadline is None or time.monotonic() < deadline:
        found = dict(events.poll(None if deadline is None else max(deadline - time.monotonic(), 0)))
        if process in found:
            return
        count = sum(number in numbers for number in peek(wakeups))
        is_new, seen = count > seen or (count and count < seen), count
        if not is_new:
            continue
        now = time.monotonic()
        if deadline is None or first is None:
            first, deadline = now, now + timeout
        elif now - first > SAME_REQUEST:
            deadline = min(deadline, now + TIME_TO_REACT)
    end(process, site)


def peek(wakeups: socket.socket) -> bytes:
    try:
        return wakeups.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""


def end(process: int, site: int) -> None:
    """Make the site write its stacks, and kill it if it does not end."""
    with contextlib.suppress(OSError):  # the output may be closed
        os.write(2, f"Site process {site} does not react to signals: ending it.\n".encode())
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGABRT)
        if not select.select([process], [], [], TIME_TO_WRITE_STACKS)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), [int(each) for each in sys.argv[4:]])
