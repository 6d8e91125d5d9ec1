"""Debuggers, profilers and coverage: detecting them in this process, and keeping them at work."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, NoReturn

from ..project import modules
from ..successor.program import PR_SET_PDEATHSIG, SYSTEMD_FIRST
from ..system.terminal import is_in_foreground

CONSOLES = ("bdb", "pdb", "code")
"""The modules of the standard library that read from the terminal; ipdb and pudb are built on them."""

FOLLOWING = ("pydevd", "_pydevd_bundle")
"""The modules of debugpy (VS Code) and PyCharm: they follow child processes and lose a process at an exec."""

COVERAGE_FOLLOWS = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
"""The environment variables with which coverage also measures child processes."""

FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def follows_children() -> bool:
    """Return whether a debugger attaches to the child processes of this process."""
    return any(name in sys.modules for name in FOLLOWING)


def find_observer() -> str | None:
    """Return the name of a debugger, profiler or coverage that observes this process and no other one.

    None if there is none, or if it also observes child processes.
    """
    if follows_children():
        return None
    if holds_terminal():
        return "pdb"
    for hook, kind in ((sys.gettrace(), "a tracer"), (sys.getprofile(), "a profiler")):
        if hook is not None and (name := _name_of(hook, kind)) is not None:
            return name
    return _monitoring_tool()


def _name_of(hook: Any, kind: str) -> str | None:
    owner = getattr(hook, "__self__", hook)
    name = str(getattr(owner, "__module__", None) or type(owner).__module__).partition(".")[0]
    return kind if name == "__main__" else _unless_following(name)


def _monitoring_tool() -> str | None:
    monitoring = getattr(sys, "monitoring", None)  # since Python 3.12
    if monitoring is None:
        return None
    names = (monitoring.get_tool(number) for number in range(6))
    return next((name for name in names if name and _unless_following(name)), None)


def _unless_following(name: str) -> str | None:
    is_coverage = name.startswith("coverage")
    return None if is_coverage and any(each in os.environ for each in COVERAGE_FOLLOWS) else name


def holds_terminal() -> bool:
    """Return whether a thread of this process is in a debugger of the standard library."""
    files = _files_of(CONSOLES)
    return bool(files) and any(_passes(frame, files) for frame in sys._current_frames().values())


def holds_thread(identifier: int) -> bool:
    """Return whether a debugger holds a thread of this process: the standard library's, or an editor's."""
    files = _files_of((*CONSOLES, *FOLLOWING))
    return bool(files) and _passes(sys._current_frames().get(identifier), files)


def _files_of(names: Iterable[str]) -> set[str]:
    return {modules.attribute(name, "__file__") for name in names} - {None}


def _passes(frame: FrameType | None, files: set[str]) -> bool:
    while frame is not None:
        if frame.f_code.co_filename in files:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def reserved_descriptors(count: int) -> Iterator[list[int]]:
    """Open the first ``count`` descriptors after the standard streams, and yield them for a child to inherit.

    The child needs these numbers for its sockets, because systemd's protocol begins there. A debugger that
    attaches to the child earlier would occupy them. Without a debugger, none are reserved.
    """
    numbers = range(SYSTEMD_FIRST, SYSTEMD_FIRST + count if follows_children() else SYSTEMD_FIRST)
    opened = []
    try:
        for number in numbers:
            with open(os.devnull) as null:
                high = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, SYSTEMD_FIRST + count)
            placed = fcntl.fcntl(high, fcntl.F_DUPFD_CLOEXEC, number)
            os.close(high)
            if placed == number:
                opened.append(placed)
            else:  # the number is in use already
                os.close(placed)
        yield list(numbers)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def run_below(arguments: list[str], environment: Mapping[Any, Any], passed: list[int]) -> NoReturn:
    """Run a program as a child, and exit with its status: an exec would lose the debugger.

    Signals are forwarded to the program. It gets the descriptors ``passed``, and ends with this process.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))

    def forward(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT or not is_in_foreground():  # in the foreground, the terminal signals both
            process.send_signal(number)

    # Only the main thread may do this: PR_SET_PDEATHSIG signals when the thread that forked ends.
    process = subprocess.Popen(
        arguments,
        env=environment,
        pass_fds=passed,
        preexec_fn=end_with_parent,  # noqa: PLW1509  # it takes no lock
    )
    for descriptor in passed:
        os.close(descriptor)
    for number in FORWARDED_SIGNALS:
        signal.signal(number, forward)
    while (ended := os.wait())[0] != process.pid:  # PID 1 of a container also gets orphans
        pass
    status = process.returncode = os.waitstatus_to_exitcode(ended[1])
    sys.exit(128 - status if status < 0 else status)
