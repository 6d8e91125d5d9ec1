"""The launcher's thread that watches files, from before the first boot until its end."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable

from ..watching.files import FileWatch, WatchList

PAUSE_AFTER_ERROR = 1.0
"""Seconds after an unexpected error before the thread goes on."""

TIME_TO_CLOSE = 1.0
"""Seconds for which the end of the launcher waits for the thread."""


class Watcher:
    """Watches files in a thread, which calls ``notify()`` when `take` has something to return.

    ``say(line)`` writes to the terminal how files are watched.
    """

    def __init__(self, notify: Callable[[], None], say: Callable[[str], None]) -> None:
        self._notify = notify
        self._say = say
        self._said = ""
        self._files = FileWatch()
        self._orders: queue.SimpleQueue[tuple[WatchList, str | None, int | None]] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="Files", daemon=True)
        self._thread.start()

    def watch(self, wanted: WatchList, tree: str | None = None, since: int | None = None) -> None:
        """Watch these files from now on: see `FileWatch.watch`."""
        self._orders.put((wanted, tree, since))
        self._files.wake()

    def take(self) -> list[str]:
        """Return the files that have changed since the last call, once they are complete."""
        changed: set[str] = set()
        while not self._found.empty():
            changed.update(self._found.get())
        return sorted(changed)

    def close(self) -> None:
        self._is_closing = True
        self._files.wake()
        self._thread.join(TIME_TO_CLOSE)
        if not self._thread.is_alive():  # else a file system does not answer, or files are still written
            self._files.close()

    def _run(self) -> None:
        while not self._is_closing:
            try:
                self._turn()
            except Exception:  # the next save must be noticed all the same
                self._say(traceback.format_exc().rstrip())
                time.sleep(PAUSE_AFTER_ERROR)

    def _turn(self) -> None:
        changed: set[str] = set()
        while not self._orders.empty():
            wanted, tree, since = self._orders.get()
            changed |= self._files.watch(wanted, tree, since)
            if tree is None:
                self._say_means()
        changed = changed or self._files.wait()
        if changed:
            self._found.put(self._files.settle(changed))
            self._notify()

    def _say_means(self) -> None:
        means = self._files.means
        if means != self._said:
            self._said = means
            self._say(f"Watching for file changes {means}")


def remove_bytecode(paths: Iterable[str]) -> None:
    """Remove the bytecode of files that have changed.

    Python would use it for any file of the same size that was changed in the same second.
    """
    for path in paths:
        with contextlib.suppress(OSError, ValueError, NotImplementedError):  # not ours; no path; no cache
            if path.endswith(".py"):
                for level in ("", 1, 2):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(importlib.util.cache_from_source(path, optimization=level))
