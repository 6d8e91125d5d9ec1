"""The cost of an idle server: no saves and no requests."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from .measure import table
from .serving import pss
from .sessions import members
from .watchers import WATCHERS, Watcher

SETTLING = 5.0
"""Seconds to wait after the first answer, while some servers collect files to watch or start a spare."""
SECONDS = 20.0


class Usage(NamedTuple):
    processor: float
    """Seconds of user and system time."""
    switches: int


def measure_all(names: Collection[str], serve: Callable[[Watcher], AbstractContextManager[Any]]) -> None:
    rows = {}
    for name in names:
        rows[name] = ["did not start" if WATCHERS[name].is_installed else "not installed", "", "", ""]
        if WATCHERS[name].is_installed:
            try:
                with serve(WATCHERS[name]) as served:
                    rows[name] = measure(served.process.pid)
            except (RuntimeError, TimeoutError) as error:  # measure the other servers nevertheless
                print(f"{name}: {error}", file=sys.stderr)
    columns = ["processor, ms a second", "context switches a second", "processes", "PSS, MB"]
    table(f"A small project, {SECONDS:g} s without a save or a request", columns, rows)


def measure(leader: int) -> list[str]:
    time.sleep(SETTLING)
    before = usage(leader)
    time.sleep(SECONDS)
    after = usage(leader)
    processor = (after.processor - before.processor) / SECONDS
    switches = (after.switches - before.switches) / SECONDS
    processes = members(leader)
    memory = sum(map(pss, processes))
    return [f"{processor * 1000:.1f}", f"{switches:.1f}", str(len(processes)), f"{memory:.0f}"]


def usage(leader: int) -> Usage:
    """Return the usage of a session's processes so far."""
    processor, switches = 0.0, 0
    for process in members(leader):
        with contextlib.suppress(psutil.Error, OSError):  # it ended
            times = process.cpu_times()
            processor += times.user + times.system
            switches += thread_switches(process.pid)
    return Usage(processor, switches)


def thread_switches(pid: int) -> int:
    """Return the context switches of all threads. The process's own count covers only the main thread."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            lines = status.read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total
