"""The program of what the site process starts: run by path, it makes the process one that ends with the site.

``serve ALIAS PAIR`` becomes the child of a server (same path, same settings) and hands over to the
function that the site names; imports of Django come after that. ``execute SITE COMMAND...`` executes
another program.
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
    if sys.argv[1] == "execute":
        die_with(int(sys.argv[2]), signal.SIGKILL)  # which lasts over an exec
        os.execv(sys.argv[3], sys.argv[3:])
    pair = socket.socket(fileno=int(sys.argv[3]))
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
