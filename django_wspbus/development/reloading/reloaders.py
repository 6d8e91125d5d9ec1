"""What Django's reloader does not notice: files that are gone, are new, or were saved during the boot."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from django.utils.autoreload import BaseReloader, StatReloader

from ...project import libraries, modules
from ..watching.files import compile_glob, digest

Signature = tuple[int, int, int]

COARSENESS = 10_000_000
"""Nanoseconds that the time of a file may be behind the clock: a tick of the kernel."""

SECOND = 1_000_000_000

FRESH = 3.0
"""Seconds after a change within which another may seem to be the same one."""


class TooManyWatches(Exception):
    """The system watches no more files for this user."""


class Snapshot:
    """What the watched files of a reloader look like; a missing file has no signature."""

    def __init__(self, reloader: BaseReloader) -> None:
        self.reloader = reloader
        self.files: dict[Path, Signature | None] = {}
        self.modules = 0

    def take(self) -> None:
        """Look for files anew, but not in folders; those known before keep the signature that they had."""
        self.modules = len(sys.modules)
        for path in watched(self.reloader, include_globs=False):
            if path not in self.files:
                self.files[path] = signature(path)

    def changes(self, paths: Iterable[Path] | None = None) -> Iterator[Path]:
        """Yield which of these files have changed since the last look at them; of all, if None."""
        for path in list(self.files) if paths is None else paths:
            now = signature(path)
            if now != self.files.get(path):
                self.files[path] = now
                yield path

    def additions(self) -> Iterator[Path]:
        """Yield the files that are new in the folders that are watched with a glob, from now on known."""
        for path in matches(self.reloader):
            if path not in self.files:
                self.files[path] = signature(path)
                yield path

    def passers(self, paths: Iterable[Path]) -> Iterator[Path]:
        """Yield those of some paths, unknown so far, that a glob matches, although they may be gone again.

        Somebody may have read them meanwhile.
        """
        for path in paths:
            for folder, patterns in list(self.reloader.directory_globs.items()):
                if folder in path.parents and not path.is_dir():
                    name = str(path.relative_to(folder))
                    if any(compile_glob(pattern).fullmatch(name) for pattern in patterns):
                        self.files[path] = signature(path)
                        yield path


def watched(reloader: BaseReloader, include_globs: bool = True) -> set[Path]:
    """Return the files that a reloader is to watch.

    Django keeps the list of modules' files, and for good without one that was not there at the moment:
    many an editor moves a file away before it writes another. Its list also fails as a whole if one
    entry of ``sys.modules`` cannot be read.
    """
    files = {Path(os.path.realpath(file)) for file in libraries.project_files()}
    try:
        return files.union(reloader.watched_files(include_globs=include_globs))
    except Exception:
        files.update(Path(os.path.realpath(file)) for file in modules.files())
        return files.union(reloader.extra_files, matches(reloader) if include_globs else ())


def matches(reloader: BaseReloader) -> Iterator[Path]:
    """Yield the files in the folders that are watched with a glob."""
    for folder, patterns in list(reloader.directory_globs.items()):
        for pattern in list(patterns):
            with contextlib.suppress(OSError, ValueError, NotImplementedError):  # not readable; no pattern
                yield from (path for path in folder.glob(pattern) if not path.is_dir())


def signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class PollingReloader(StatReloader):
    """Django's reloader that looks at every file once a second."""

    armed: Callable[[], None] = staticmethod(lambda: None)
    """Called once it watches."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped = threading.Event()

    def stop(self) -> None:
        super().stop()
        self._stopped.set()

    def tick(self) -> Iterator[None]:
        snapshot = Snapshot(self)
        snapshot.take()
        for _ in snapshot.additions():
            pass
        self.armed()
        while not self._stopped.wait(self.SLEEP_TIME):
            for path in (*snapshot.changes(), *snapshot.additions()):
                self.notify_file_changed(path)
            snapshot.take()
            yield


def changed_since(reloader: BaseReloader, moment: int) -> dict[Path, str]:
    """Return the files that have changed since a `time.time_ns`, each with the digest of what it holds.

    By the clock of the file system, which may be another one: what it says of the future is not believed.
    A module's file that is gone has changed as well, its digest is empty.
    """
    moment -= COARSENESS
    changed = {Path(file): "" for file in libraries.project_files() if not os.path.exists(file)}
    for path in watched(reloader):
        try:
            status = path.stat()
        except OSError:
            continue
        times = status.st_mtime_ns, status.st_ctime_ns
        if any(moment < each <= time.time_ns() for each in times) and path.is_file():
            changed[path] = digest(path)
    return changed


def forget_bytecode(reloader: BaseReloader) -> None:
    """Remove the bytecode of what has changed of late.

    Python takes it to be that of a file with the same size and the same second of its change.
    """
    now = time.time()
    for path in watched(reloader):
        with contextlib.suppress(OSError, ValueError, NotImplementedError):  # gone; no module; no cache
            if path.suffix == ".py" and now - path.stat().st_mtime < FRESH:
                os.unlink(importlib.util.cache_from_source(str(path)))


def newest_change(reloader: BaseReloader) -> tuple[int, int]:
    """Return how many of the watched files have changed within a second, and when the last has (time_ns).

    A module's file that is gone counts as two, as something else is about to take its place.
    """
    now = time.time_ns()
    times = []
    gone = sum(not os.path.exists(file) for file in libraries.project_files())
    for path in watched(reloader):
        try:
            status = path.stat()
        except OSError:
            continue
        recent = [each for each in (status.st_mtime_ns, status.st_ctime_ns) if now - SECOND < each <= now]
        if recent:
            times.append(max(recent))
    return len(times) + 2 * gone, max(times, default=0)
