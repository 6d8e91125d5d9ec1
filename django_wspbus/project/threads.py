"""Threads that the project started at import or in `AppConfig.ready()`: in too many processes."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

TASKS = Path("/proc/self/task")

LONGEST_NAME = 15
"""Characters that the kernel keeps of the name of a thread (TASK_COMM_LEN)."""

DEBUGGERS = ("pydevd", "debugpy", "ptvsd")

POOLS = re.compile(r"openblas|mkl_|blis|libgomp|libomp|libiomp")
"""Libraries that keep threads without names for arithmetic, and start them again after a fork."""

ADVICE = "Start them in a listener of the channel 'start', or in a lifespan, instead of in AppConfig.ready()."


def foreign_threads() -> list[str]:
    """Return the names of the threads besides the main one, native ones included where the system tells.

    Left out are the threads of a debugger and those that numeric libraries keep for arithmetic.
    """
    return [*_python_threads(), *_native_threads()]


def _python_threads() -> list[str]:
    threads = [each for each in threading.enumerate() if each is not threading.main_thread()]
    return [each.name for each in threads if not each.name.startswith(DEBUGGERS)]


def _native_threads() -> list[str]:
    """Return the names of the threads that `threading` does not know, as C extensions start them."""
    if sys.platform != "linux":
        return []
    # The main thread of a process that was forked may bear the native_id of the parent's.
    known = {str(os.getpid()), *(str(each.native_id) for each in threading.enumerate())}
    try:
        names = [_name(task) for task in TASKS.iterdir() if task.name not in known]
        # gunicorn may have given the main thread another name since (setproctitle).
        own = {_name(TASKS / str(os.getpid())), os.path.basename(sys.executable)[:LONGEST_NAME]}
        has_pools = bool(POOLS.search(Path("/proc/self/maps").read_text(errors="replace")))
    except OSError:  # no /proc; or a thread has ended meanwhile
        return []
    named = sorted({*names} - own)
    unnamed = ["without a name"] if own & {*names} and not has_pools else []
    return [f"{name} (native)" for name in (*named, *unnamed)]


def _name(task: Path) -> str:
    return (task / "comm").read_text().strip()
