"""The states of processes, from /proc."""

from __future__ import annotations

import contextlib
from pathlib import Path


def state_of(pid: int) -> str:
    """Return the letter of a process's state in /proc; "" if there is no such process, "?" without /proc."""
    with contextlib.suppress(OSError):
        return read_stat(Path(f"/proc/{pid}/stat"))[0]
    return "" if Path("/proc/self").exists() else "?"


def is_suspended(pid: int) -> bool:
    """Return whether SIGSTOP has stopped a process."""
    return state_of(pid) == "T"


def has_running_thread(pid: int) -> bool:
    """Return whether a thread of a process runs, or waits for a processor or a disk."""
    with contextlib.suppress(OSError):
        return any(read_stat(task / "stat")[0] in "RD" for task in Path(f"/proc/{pid}/task").iterdir())
    return False


def descendants(pid: int) -> list[int]:
    """Return the processes below a process; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            parent = int(read_stat(path)[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(pid, ()))
    for each in found:
        found += children.get(each, ())
    return found


def with_variable(name: str, value: str) -> list[int]:
    """Return the processes that were started with a variable in their environment; none without /proc."""
    entry, found = f"{name}={value}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # ended meanwhile, or of another user
            if entry in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def read_stat(path: Path) -> list[str]:
    """Return the fields of a file ``stat`` in /proc that follow the name: the state, the parent, ..."""
    # The name of the program, in parentheses, may hold anything.
    return path.read_text(errors="replace").rpartition(")")[2].split()
