"""The files of a project, and those of them that have changed."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .events import Events, Hint
from .globs import compile_glob

QUIET, QUIET_FOR_MANY = 0.02, 0.15
"""Seconds without a change after which one file, or several, are taken to be complete."""

LONGEST = 2.0
"""Seconds after the first change after which all are returned, even if files are still written."""

# The clock of a file system goes by ticks: a file may bear a time before that at which it was written.
TICK = 10_000_000

FOREIGN = ("__pycache__", "node_modules", "site-packages")

State = tuple[int, ...]
"""ctime, mtime, size, inode and mode of a file; () of a folder."""


@dataclass(slots=True)
class WatchList:
    """The files that the site asks the launcher to watch.

    ``globs``: pairs of a folder and a pattern, in which ``**/`` stands for any folders. Hidden folders and
    `FOREIGN` ones are left out. ``poll``: POLL of AUTORELOAD.
    """

    files: list[str] = field(default_factory=list)
    """Paths; the files need not exist."""
    globs: list[list[str]] = field(default_factory=list)
    poll: bool | None = None

    def __or__(self, other: WatchList) -> WatchList:
        """Return a list of all files in either list; the other's ``poll`` prevails, if it is set."""
        globs = sorted({(folder, pattern) for folder, pattern in self.globs + other.globs})
        poll = self.poll if other.poll is None else other.poll
        return WatchList(sorted({*self.files, *other.files}), [list(pair) for pair in globs], poll)


class FileWatch:
    """Watches the files of a list. All but `wake` is for one thread."""

    def __init__(self) -> None:
        self._events = Events()
        self._snapshot: dict[str, State] = {}
        self._ways: set[str] = set()
        """Missing folders on the way to the files."""
        self._watched: tuple[WatchList, str | None] = WatchList(), None
        self._prepare(*self._watched)
        self.wake = self._events.wake

    def close(self) -> None:
        self._events.close()

    @property
    def means(self) -> str:
        """The means by which changes are noticed, as the end of a sentence."""
        return self._events.means

    def watch(self, wanted: WatchList, tree: str | None = None, since: int | None = None) -> set[str]:
        """Watch these files in place of the former ones; return the files that have changed meanwhile.

        A file that was not watched before has changed if its times are later than ``since``, a
        `time.time_ns`. ``tree``: a folder in which each ``*.py`` and each folder is watched as well.
        """
        if (wanted, tree) == self._watched:  # as after most restarts: a look at all files takes time
            return set()
        self._watched = wanted, tree
        self._prepare(wanted, tree)
        before, self._snapshot = self._snapshot, self._look()
        added = self._snapshot.keys() - before.keys()
        known = {path for path, state in before.items() if state and self._is_watched(path)}
        changed = {path for path in known if self._differs(path, before[path])}
        return changed | {path for path in added if since is not None and self._is_later(path, since)}

    def wait(self) -> set[str]:
        """Wait for a change; return the files that have changed, if any. `wake` ends the wait."""
        return self._compare(self._events.wait())

    def settle(self, paths: Iterable[str]) -> list[str]:
        """Wait until no file changes any more; return all that have changed, these paths included."""
        changed = set(paths)
        last = time.monotonic()
        end = last + LONGEST
        while True:
            # In the place of a file that is gone another one is often about to appear.
            is_one = len(changed) == 1 and changed <= self._snapshot.keys()
            rest = min(end, last + (QUIET if is_one else QUIET_FOR_MANY))
            more = self._compare(self._events.wait(rest - time.monotonic()))
            now = time.monotonic()
            changed |= more
            if now >= end or (now >= rest and not more):
                return sorted(changed)
            last = now if more else last

    # Folders

    def _prepare(self, wanted: WatchList, tree: str | None) -> None:
        self._poll = wanted.poll
        self._files = {os.path.abspath(path) for path in wanted.files}
        links = [path for path in self._files if os.path.islink(path)]
        self._targets = {os.path.realpath(path): path for path in links}
        self._tree = tree and os.path.abspath(tree)
        pairs = [(os.path.abspath(folder), pattern) for folder, pattern in wanted.globs]
        pairs += [(self._tree, "**/*.py")] if self._tree else []
        self._globs: dict[str, list[re.Pattern[str]]] = {}
        for folder, pattern in pairs:
            self._globs.setdefault(folder, []).append(compile_glob(pattern))
        self._deep = {folder for folder, pattern in pairs if "/" in pattern or "**" in pattern}

    def _is_watched(self, path: str) -> bool:
        return path in self._files or any(
            self._matches(root, path)
            and not any(map(is_foreign, path[len(root.rstrip("/")) + 1 :].split("/")[:-1]))
            for root in self._globs
        )

    def _matches(self, root: str, path: str) -> bool:
        start = len(root.rstrip("/")) + 1
        is_below = path.startswith(root) and path[start - 1 : start] == "/"
        return is_below and any(glob.fullmatch(path, start) for glob in self._globs[root])

    # What has changed

    def _compare(self, hints: set[Hint] | None) -> set[str]:
        """Return the files that have changed, of those that the kernel hints at; None: of all files."""
        if hints is None or any(self._has_to_look(*hint) for hint in hints):
            before, self._snapshot = self._snapshot, self._look()
            return {path for path in before.keys() | self._snapshot if self._differs(path, before.get(path))}
        changed = set()
        for path in {self._targets.get(path, path) for path, _ in hints}:
            if self._is_watched(path):
                before_it, state = self._snapshot.pop(path, None), state_of(path)
                if state:
                    self._snapshot[path] = state
                has_passed = before_it is None and not state  # it may have been read meanwhile
                if has_passed or self._differs(path, before_it):
                    changed.add(path)
        return changed

    def _has_to_look(self, path: str, is_folder: bool) -> bool:
        return path in self._ways or (is_folder and not is_foreign(os.path.basename(path)))

    def _differs(self, path: str, before: State | None) -> bool:
        now = self._snapshot.get(path)
        if before is None or now is None:
            return before is not now
        return before[1:] != now[1:]  # a second name for a file is enough to change its ctime

    def _is_later(self, path: str, moment: int) -> bool:
        # A time in the future is not that of a change just now.
        return any(moment - TICK < each <= time.time_ns() for each in self._snapshot[path][:2])

    # Looking

    def _look(self) -> dict[str, State]:
        while True:
            folders: dict[str, int] = {}
            snapshot: dict[str, State] = {}
            self._ways = set()
            for root in self._globs:
                self._look_into(root, folders, snapshot)
            for path in self._files:
                if state := state_of(path):
                    snapshot[path] = state
            homes = {os.path.dirname(path) for path in (*self._files, *self._targets)}
            for path in homes.union(self._globs):
                self._find_home(path, folders)
            is_outdated = self._events.arm(folders, self._poll)
            if not is_outdated:  # else files may have come into the new folders meanwhile
                return snapshot

    def _look_into(self, root: str, folders: dict[str, int], snapshot: dict[str, State]) -> None:
        if self._tree and root not in self._deep:  # an installed package is a folder there
            snapshot.update((path, ()) for path in folders_in(root) if self._matches(root, path))
        for folder, entries in walk(root, root in self._deep):
            if folder != root:
                folders[folder] = inode_of(folder)
                if self._tree:
                    snapshot[folder] = ()
            for path in entries:
                if self._matches(root, path) and (state := state_of(path)):
                    snapshot[path] = state

    def _find_home(self, path: str, folders: dict[str, int]) -> None:
        """Add a folder, or what there is of the way to it."""
        while not (inode := inode_of(path)):
            self._ways.add(path)
            path = os.path.dirname(path)
        folders[path] = inode


def walk(root: str, is_deep: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and those in it, each with the paths of its files."""
    folders = [root]
    while folders:
        folder = folders.pop()
        files, below = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.is_dir():
                        files.append(entry.path)
                    elif is_deep and not entry.is_symlink() and not is_foreign(entry.name):
                        below.append(entry.path)
        except (OSError, ValueError):  # gone, not ours to read, or no path at all
            continue
        if folder == root or os.path.join(folder, "pyvenv.cfg") not in files:
            yield folder, files
            folders += below


def folders_in(root: str) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return [entry.path for entry in entries if entry.is_dir() and not is_foreign(entry.name)]
    except (OSError, ValueError):  # not there, or no path at all
        return []


def is_foreign(name: str) -> bool:
    return name.startswith(".") or name in FOREIGN


def inode_of(path: str) -> int:
    """Return the inode of a folder, 0 if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return 0
    return found.st_ino if stat.S_ISDIR(found.st_mode) else 0


def state_of(path: str) -> State:
    """Return the `State` of a file, () if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    if not stat.S_ISREG(found.st_mode):
        return ()
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def digest(path: str) -> str:
    """Return the SHA-256 of a file in hexadecimal, nothing if it cannot be read."""
    import hashlib  # once needed: OpenSSL takes memory

    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
