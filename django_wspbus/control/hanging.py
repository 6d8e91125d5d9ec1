"""The stacks of a site process that does not answer, because C code holds its GIL.

The process writes them to memory in a file without a name, which its user and root can open through /proc. So
the command can read them without any Python code of the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path
from typing import Any

from ..process.dump import LOOK_INTERVAL, STACKS_SIGNAL, Growth, decoded, write_on_signals
from ..system.processes import state_of
from .conversation import ControlError, Conversation
from .finding import HELLO_TIMEOUT, FoundSite

NAME = "django-wspbus-stacks"

STOPPED, ENDED = ("T", "t"), ("Z", "")
"""States of a process: see `state_of`."""


def write_stacks_on_signal() -> None:
    """In the site process: write the stacks of all threads at each signal of `process.dump`. Call it once."""
    if not hasattr(os, "memfd_create"):
        return
    descriptor = os.memfd_create(NAME)  # it stays open as long as the process
    # Readers discard what is there, and do not share the offset of this process.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    write_on_signals(descriptor, lambda: os.fstat(descriptor).st_size, interrupts=True)


def find_process(site: FoundSite) -> int:
    """Return the PID of a site process, in the namespace of this process."""
    try:
        with contextlib.closing(Conversation(site.name, timeout=HELLO_TIMEOUT)) as conversation:
            return conversation.pid or site.pid
    except (OSError, ControlError):  # the queue of its socket is full
        return site.pid


def stacks_in_place_of_site(pid: int) -> dict[str, Any]:
    """Return the result of the action ``stacks``, with the site process only."""
    try:
        stacks, error = read_stacks(pid), None
    except ControlError as failure:
        stacks, error = None, str(failure)
    process = {"pid": pid, "role": "site", "server": None, "stacks": stacks, "error": error}
    return {"processes": [process]}


def read_stacks(pid: int) -> str:
    """Return the stacks of a site process; `ControlError` with the reason if it does not write them."""
    try:
        with open(_file_of(pid), "r+b", buffering=0) as file:
            file.truncate(0)
            _check_signals(pid)
            return _read(pid, file.fileno())
    except PermissionError:
        raise ControlError("Its stacks can be read by root only, because it has changed its user.") from None
    except OSError:
        raise ControlError(f"There is no process {pid} here: it has ended, or runs in a container.") from None


def _file_of(pid: int) -> str:
    folder = f"/proc/{pid}/fd"
    for number in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if os.readlink(f"{folder}/{number}").startswith(f"/memfd:{NAME} "):
                return f"{folder}/{number}"
    raise ControlError("It writes no stacks: it is starting, or in development its code does not boot.")


def _check_signals(pid: int) -> None:
    """Raise `ControlError` if the process does not handle the signals, which would end it."""
    assert STACKS_SIGNAL is not None  # the process has made the file
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if caught is None or not int(caught[1], 16) >> (STACKS_SIGNAL - 1) & 1:
        raise ControlError("It writes no stacks: it is starting.")


def _read(pid: int, descriptor: int) -> str:
    """Wait until the process has written its stacks, and return them."""
    growth = Growth(pid)
    while not growth.has_ended(length := os.fstat(descriptor).st_size):
        time.sleep(LOOK_INTERVAL)
    if length:
        return decoded(os.pread(descriptor, length, 0))
    state = state_of(pid)
    if state in STOPPED:
        raise ControlError(f"It is stopped (SIGSTOP): `kill -CONT {pid}` lets it go on.")
    if state in ENDED:
        raise ProcessLookupError
    raise ControlError(f"It does not react to signals: the kernel holds it (state {state}).")
