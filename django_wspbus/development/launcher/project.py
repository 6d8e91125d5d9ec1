"""The files of the project, as the launcher watches them over all boots."""

from __future__ import annotations

from collections.abc import Callable
from os.path import dirname, isdir, join, realpath

from ...successor.invocation import Invocation
from ..frames import mentioned
from ..watching.files import WatchList
from .child import Child
from .saves import Saves
from .watcher import Watcher, remove_bytecode


class ProjectFiles:
    """The files of the project, and those of them that have changed.

    ``root``: the project's folder. ``wake()`` is called by another thread when files have changed.
    ``say(line)`` writes a line to the terminal.
    """

    def __init__(self, root: str, wake: Callable[[], None], say: Callable[[str], None]) -> None:
        self.known = WatchList()
        """The files of the last site that served, and those that failed boots have read since."""
        self.pending: set[str] = set()
        """Files that have changed during the current boot, which may have read them before."""
        self._root = root
        self._changed: set[str] = set()
        """All files that have changed since the current boot began."""
        self._saves = Saves(say)
        self._watcher = Watcher(wake, say)

    def close(self) -> None:
        self._watcher.close()

    def begin_boot(self) -> None:
        """Remove outdated bytecode, and forget which files have changed."""
        remove_bytecode(self._changed)
        self._changed.clear()
        self.pending.clear()
        self._saves.begin_boot()

    def learn(self, child: Child, watched: WatchList, since: int | None) -> None:
        """Watch the files that a child has reported: those of a site or a worker, or of a boot that failed.

        ``since``: when it began to read them, as `time.time_ns`; None: when it was started.
        """
        is_more = child.has_reported_files or child.failure is not None
        self.known = self.known | watched if is_more else watched
        child.has_reported_files = True
        self.watch(child, child.began if since is None else since)

    def learn_from_report(self, page: Child, text: str, since: int) -> None:
        """Watch the files that a report names, while an error page shows it."""
        self.known = WatchList([join(self._root, path) for path in mentioned(text)]) | self.known
        self.watch(page, since)

    def watch(self, child: Child, since: int | None = None) -> None:
        """Watch the known files, and the whole project's folder while a boot is slow or has failed."""
        is_broken = child.failure is not None or (child.is_booting and child.boot_ends is None)
        self._watcher.watch(self.known, self._root if is_broken else None, since)

    def reasons(self, child: Child | None) -> list[str]:
        """Return the files whose changes concern a child."""
        changed = self._watcher.take()
        self._changed.update(changed)
        if child is None or child.relaunching:  # the next child reads the files as they are now
            return []
        return self._saves.reasons(changed, child.booted)


def root_of(invocation: Invocation) -> str:
    """Return the project's folder: that of the program, or the working directory for ``-m`` and ``-c``."""
    program = invocation.command[0]
    if program.startswith("-"):
        return invocation.directory
    path = realpath(join(invocation.directory, program))
    return path if isdir(path) else dirname(path)
