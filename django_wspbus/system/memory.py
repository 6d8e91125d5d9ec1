"""The memory of a process, as Linux counts it. None where there is no /proc."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

RESIDENT = re.compile(r"^(?:VmRSS|VmSwap):\s+(\d+) kB", re.MULTILINE)
PRIVATE = re.compile(r"^(?:Private_Clean|Private_Dirty|Swap):\s+(\d+) kB", re.MULTILINE)


def private_memory(pid: int) -> int | None:
    """Return the bytes that only this process uses, swapped out or not; the system frees them at its end.

    This takes milliseconds: the kernel walks all pages of the process.
    """
    return _sum(PRIVATE, pid, "smaps_rollup")


def most_private_memory(pid: int) -> int | None:
    """Return all bytes that the process uses, also with others: no less than `private_memory`, at once."""
    return _sum(RESIDENT, pid, "status")


def _sum(fields: re.Pattern[str], pid: int, name: str) -> int | None:
    with contextlib.suppress(OSError):  # it has ended, or belongs to another user
        found = fields.findall(Path(f"/proc/{pid}/{name}").read_text(errors="replace"))
        return sum(map(int, found)) * 1024 if found else None
    return None
