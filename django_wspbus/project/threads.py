"""Threads that the project starts at import or in `AppConfig.ready()`, and so in too many processes."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

TASKS = Path("/proc/self/task")

LONGEST_NAME = 15
"""Characters of a thread's name that the kernel keeps (TASK_COMM_LEN)."""

DEBUGGERS = ("pydevd", "debugpy", "ptvsd")

POOLS = re.compile(r"openblas|mkl_|blis|libgomp|libomp|libiomp")
"""Numeric libraries. They keep threads without names for arithmetic, and restart them after a fork."""

ADVICE = "Start them in a listener of the channel 'start', or in a lifespan, instead of in AppConfig.ready()."


def foreign_threads() -> list[str]:
    """Return the names of all threads but the main one; on Linux also those of native threads.

    Threads of a debugger or of a numeric library are left out.
    """
    return [*_python_threads(), *_native_threads()]


def _python_threads() -> list[str]:
    threads = [each for each in threading.enumerate() if each is not threading.main_thread()]
    return [each.name for each in threads if not each.name.startswith(DEBUGGERS)]


def _native_threads() -> list[str]:
    """Return the names of threads that `threading` does not know, such as those of C extensions."""
    if sys.platform != "linux":
        return []
    # In a forked process the main thread may still have the native_id of the parent's.
    known = {str(os.getpid()), *(str(each.native_id) for each in threading.enumerate())}
    try:
        names = [_name(task) for task in TASKS.iterdir() if task.name not in known]
        # gunicorn may have renamed the main thread (setproctitle).
        own = {_name(TASKS / str(os.getpid())), os.path.basename(sys.executable)[:LONGEST_NAME]}
        has_pools = bool(POOLS.search(Path("/proc/self/maps").read_text(errors="replace")))
    except OSError:  # there is no /proc, or a thread has ended meanwhile
        return []
    named = sorted({*names} - own)
    unnamed = ["without a name"] if own & {*names} and not has_pools else []
    return [f"{name} (native)" for name in (*named, *unnamed)]


def _name(task: Path) -> str:
    return (task / "comm").read_text().strip()
