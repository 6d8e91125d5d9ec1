"""The program of a child server: run by path, with the server's alias and the descriptor of the pair.

It makes the process the site's (same path, same settings, ends with it), then hands over to the
function that the site names. Imports of Django come after that.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1
SYSTEMD_FIRST = 3


def main() -> None:
    pair = socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(pair.fileno(), False)
    with pair.makefile("rb") as lines:
        start = json.loads(lines.readline())
    die_with(start["site"], signal.SIGKILL)
    sys.path[:] = start["path"]
    sys.argv[:] = start["argv"]
    pair = pass_sockets(pair, start["sockets"])
    module, _, function = start["run"].partition(":")
    getattr(importlib.import_module(module), function)(start, pair)


def die_with(parent: int, number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, also if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def pass_sockets(pair: socket.socket, descriptors: list[int]) -> socket.socket:
    """Put the listening sockets where systemd's protocol wants them, and the pair out of their way."""
    above = SYSTEMD_FIRST + len(descriptors)
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, above) for each in descriptors]
    kept = fcntl.fcntl(pair.fileno(), fcntl.F_DUPFD_CLOEXEC, above)
    for descriptor in (*descriptors, pair.detach()):
        os.close(descriptor)
    for index, descriptor in enumerate(moved):
        os.dup2(descriptor, SYSTEMD_FIRST + index)
        os.close(descriptor)
    os.environ.update(LISTEN_FDS=str(len(moved)), LISTEN_PID=str(os.getpid()))
    return socket.socket(fileno=kept)


if __name__ == "__main__":
    main()
