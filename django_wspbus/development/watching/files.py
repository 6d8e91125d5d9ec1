"""Which files a project is made of, and what has become of them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping

from .events import events

QUIET, QUIET_FOR_MANY = 0.02, 0.15
"""Seconds without a change after which one file, or several, are taken to be complete."""

LONGEST = 2.0
"""Seconds after the first change within which all of them are told, whatever else goes on."""

# The clock of a file system goes by ticks: a file may bear a time before that at which it was written.
TICK = 10_000_000

FOREIGN = ("__pycache__", "node_modules", "site-packages")

Snapshot = dict[str, tuple[int, ...]]
"""Path of a file -> ctime, mtime, size, inode and mode; path of a folder -> ()."""


class FileWatch:
    """Watches files, what matches globs in folders, and each ``*.py`` in the folder ``tree``.

    Files need not exist. ``globs`` are pairs of a folder and a pattern, where ``**/`` stands for any folders
    in between; those that are hidden, or hold what others have written, are left out. ``poll``: as POLL of
    AUTORELOAD. It is armed when made.
    """

    def __init__(
        self,
        files: Iterable[str],
        globs: Iterable[Iterable[str]] = (),
        tree: str | None = None,
        poll: bool | None = None,
    ) -> None:
        self._files = {os.path.abspath(path) for path in files}
        real = {os.path.realpath(path) for path in self._files if os.path.islink(path)}
        self._homes = {os.path.dirname(path) for path in self._files | real}
        self._names = {os.path.basename(path) for path in self._files | real}
        pairs = [(os.path.abspath(folder), pattern) for folder, pattern in globs]
        pairs += [(os.path.abspath(tree), "**/*.py")] if tree is not None else []
        self._globs: dict[str, list[re.Pattern[str]]] = {}
        for folder, pattern in pairs:
            self._globs.setdefault(folder, []).append(compile_glob(pattern))
        self._deep = {folder for folder, pattern in pairs if "/" in pattern or "**" in pattern}
        self._last_parts = [compile_glob(part) for part in {p.rpartition("/")[2] for _, p in pairs}]
        self._events = events(self._is_of_interest, poll)
        self._snapshot = self._look()

    def close(self) -> None:
        self._events.close()

    def since(self, moment: int, seen: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Return the files that have changed since a moment, and the digests of all that bear a later time.

        A file with the digest that ``seen`` has for it has not changed: its time is of the future, or it is
        written anew, and alike, whenever the project starts.
        """
        later = [path for path, state in self._snapshot.items() if max(state[:2], default=0) > moment - TICK]
        digests = {path: digest(path) for path in later}
        return sorted(path for path in later if digests[path] != seen.get(path)), digests

    def wait(self) -> list[str]:
        """Return the files and folders that have changed, as soon as there are any."""
        changed: set[str] = set()
        while not changed:
            self._events.wait(None)
            changed = self._compare()
        return sorted(changed)

    def settle(self, paths: Iterable[str]) -> list[str]:
        """Return these paths, and what else changes until nothing does."""
        changed = set(paths)
        last = time.monotonic()
        end = last + LONGEST
        while True:
            rest = min(end, last + (QUIET if len(changed) == 1 else QUIET_FOR_MANY))
            self._events.wait(max(0.0, rest - time.monotonic()))
            more, now = self._compare(), time.monotonic()
            changed |= more
            if now >= end or (now >= rest and not more):
                return sorted(changed)
            last = now if more else last

    def _compare(self) -> set[str]:
        before, now = self._snapshot, self._look()
        self._snapshot = now
        return {
            path for path in before.keys() | now if _identity(before.get(path)) != _identity(now.get(path))
        }

    def _look(self) -> Snapshot:
        while True:
            folders: dict[str, int] = {}
            snapshot: Snapshot = {}
            for root in self._globs:
                self._look_into(root, folders, snapshot)
            for path in self._files:
                if state := state_of(path):
                    snapshot[path] = state
            for path in self._homes.union(self._globs):
                self._find_home(path, folders)
            if not self._events.arm(folders):  # else there may be more in the new ones by now
                return snapshot

    def _look_into(self, root: str, folders: dict[str, int], snapshot: Snapshot) -> None:
        start = len(root.rstrip("/")) + 1
        if root not in self._deep:  # what is installed is a folder in such a one
            for path in folders_in(root):
                if any(glob.fullmatch(path, start) for glob in self._globs[root]):
                    snapshot[path] = ()
        for folder, entries in walk(root, root in self._deep):
            if folder != root:
                folders[folder] = inode_of(folder)
                snapshot[folder] = ()
            for path in entries:
                if any(glob.fullmatch(path, start) for glob in self._globs[root]) and (
                    state := state_of(path)
                ):
                    snapshot[path] = state

    def _find_home(self, path: str, folders: dict[str, int]) -> None:
        """Add a folder, or what there is of the way to it."""
        while not (inode := inode_of(path)):
            path, name = os.path.split(path)
            self._names.add(name)
        folders[path] = inode

    def _is_of_interest(self, name: str, is_folder: bool) -> bool:
        if is_folder and not is_foreign(name):
            return True
        return name in self._names or any(part.fullmatch(name) for part in self._last_parts)


def _identity(state: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return a state without the ctime, which a second name for a file is enough to change."""
    return state and state[1:]


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


def state_of(path: str) -> tuple[int, ...]:
    """Return what tells a file from what it was; nothing if it is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    if not stat.S_ISREG(found.st_mode):
        return ()
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal, nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return what matches the paths, relative to its folder, that a pattern stands for."""
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", pattern, re.DOTALL)
    stand_for = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    translated = []
    for part in parts:
        if len(part) > 2 and part[0] == "[":
            negated, inner = part[1] in "!^", part[1:-1].lstrip("!^").replace("\\", r"\\")
            translated.append(f"(?!/)[{'^' * negated}{inner}]")
        else:
            translated.append(stand_for.get(part) or re.escape(part))
    return re.compile("".join(translated), re.DOTALL)
