"""The files of the project, as the launcher watches them over all boots."""

from __future__ import annotations

from collections.abc import Callable
from os.path import join

from ..frames import mentioned
from ..watching.files import WatchList
from .child import Child
from .saves import Saves
from .watcher import Watcher, remove_bytecode


class ProjectFiles:
    """The files of which the project is made, and those of them that have changed.

    ``root``: the project's folder. ``wake()`` is called by another thread when `reasons` has some to return,
    ``say(line)`` tells the developer how files are watched.
    """

    def __init__(self, root: str, wake: Callable[[], None], say: Callable[[str], None]) -> None:
        self.known = WatchList()
        """What the last site that served was made of, and what boots since have read."""
        self.pending: set[str] = set()
        """Files that have changed during the boot under way, which may have read them before."""
        self._root = root
        self._changed: set[str] = set()
        """All files that have changed since that boot began."""
        self._saves = Saves(say)
        self._watcher = Watcher(wake, say)

    def close(self) -> None:
        self._watcher.close()

    def begin_boot(self) -> None:
        """Remove what would keep the next boot from reading the files as they are now."""
        remove_bytecode(self._changed)
        self._changed.clear()
        self.pending.clear()
        self._saves.begin_boot()

    def learn(self, child: Child, watched: WatchList, since: int | None) -> None:
        """Watch what a site, or one of its workers, was made of; after a failed boot, what that has read.

        ``since``: when it began to read what is new, as ``began`` of a child; None: when it was started.
        """
        is_more = child.has_told_files or child.report is not None
        self.known = self.known | watched if is_more else watched
        child.has_told_files = True
        self.watch(child, child.began if since is None else since)

    def learn_from_report(self, page: Child, text: str, since: int) -> None:
        """Watch, while an error page shows a report, the files that it names."""
        self.known = WatchList([join(self._root, path) for path in mentioned(text)]) | self.known
        self.watch(page, since)

    def watch(self, child: Child, since: int | None = None) -> None:
        """Watch the files that are known by now, and the project's folder while no site serves."""
        serves = child.kind == "site" and child.started
        self._watcher.watch(self.known, None if serves else self._root, since)

    def reasons(self, child: Child | None) -> list[str]:
        """Return the files whose changes are a reason to end a child, or to ask a site about them."""
        changed = self._watcher.take()
        self._changed.update(changed)
        if child is None or child.relaunching:  # what comes next reads the files
            return []
        return self._saves.reasons(changed, child.booted)
