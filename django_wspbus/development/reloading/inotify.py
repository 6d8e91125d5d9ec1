"""A reloader that sleeps until the kernel reports a change: for Linux."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.core.signals import request_finished
from django.utils.autoreload import BaseReloader
from inotify_simple import INotify, flags

from ..watching.mounts import Mounts
from .reloaders import Snapshot, TooManyWatches

MASK = (
    flags.CLOSE_WRITE
    | flags.CREATE
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.DELETE
    | flags.ATTRIB
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
    | flags.EXCL_UNLINK
)
POLLED = 1.0
"""Seconds between two looks at files of file systems that raise no events."""

GONE = flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED


class InotifyReloader(BaseReloader):
    """Watches the folders of the files, and sleeps until something happens there, or a request has ended.

    A request may have imported a module. What the kernel tells is a hint; what counts are the files. Those
    of file systems that raise no events are looked at in turns, where that ``is_suspected``.
    """

    armed: Callable[[], None] = staticmethod(lambda: None)
    """Called once it watches."""

    def __init__(self, is_suspected: bool = True) -> None:
        super().__init__()
        self._is_suspected = is_suspected
        self._silent: set[Path] = set()
        """Folders that raise no events."""
        self._next_look = 0.0
        self._inotify = INotify()
        self._ear, self._voice = socket.socketpair()
        for sock in (self._ear, self._voice):
            sock.setblocking(False)
        self._snapshot = Snapshot(self)
        self._folders: dict[int, set[Path]] = {}
        """The names of the folder of a watch: it may have several, by symbolic links."""

    def tick(self) -> Iterator[None]:
        request_finished.connect(self._look_for_modules)
        try:
            self._watch()
            for _ in self._snapshot.additions():
                pass
            self.armed()
            while not self.should_stop:
                for path in self._wait():
                    self.notify_file_changed(path)
                yield
        finally:
            request_finished.disconnect(self._look_for_modules)
            self._inotify.close()
            self._ear.close()
            self._voice.close()

    def stop(self) -> None:
        super().stop()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: it has ended
            self._voice.send(b".")

    def _look_for_modules(self, **kwargs: Any) -> None:
        if len(sys.modules) != self._snapshot.modules:
            self._wake()

    def _wait(self) -> set[Path]:
        """Return the files that have changed, once any may have."""
        poll = select.poll()
        for source in (self._inotify, self._ear):
            poll.register(source, select.POLLIN)
        left = max(0.0, self._next_look - time.monotonic())
        ready = dict(poll.poll(left * 1000 + 1 if self._silent else None))
        if self._ear.fileno() in ready:
            with contextlib.suppress(OSError):
                self._ear.recv(4096)
            self._watch()
        changed = self._changes() if self._inotify.fileno() in ready else set()
        if self._silent and time.monotonic() >= self._next_look:
            changed |= self._look()
        return changed

    def _look(self) -> set[Path]:
        """Return what has changed where there are no events; looking takes a fifth of the time at most."""
        began = time.monotonic()
        known = [path for path in self._snapshot.files if path.parent in self._silent]
        changed = {*self._snapshot.changes(known), *self._snapshot.additions()}
        self._snapshot.take()
        now = time.monotonic()
        self._next_look = now + max(POLLED, 4 * (now - began))
        return changed

    # What is watched

    def _watch(self) -> None:
        """Watch the folder of every file, and every folder below one that is watched with ``**``."""
        self._snapshot.take()
        folders = {path.parent for path in self._snapshot.files}
        for folder, patterns in list(self.directory_globs.items()):
            folders.add(folder)
            if any("**" in pattern for pattern in patterns):
                folders.update(Path(root) for root, _, _ in os.walk(folder))
        for folder in folders.difference(*self._folders.values()):
            self._watch_folder(folder)
        if self._is_suspected:
            mounts = Mounts()
            self._silent = {folder for folder in folders if mounts.silent(str(folder))}

    def _watch_folder(self, folder: Path) -> None:
        for each in (folder, *folder.parents):
            # One that is not there may come: the folder that it will be in tells.
            try:
                watch = self._inotify.add_watch(each, MASK)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise TooManyWatches from error
            else:
                self._folders.setdefault(watch, set()).add(each)
                return

    def _forget_below(self, folder: Path) -> None:
        """Watch no longer what was in a folder that has gone; by its name there may be another one."""
        for watch, names in list(self._folders.items()):
            if any(name == folder or folder in name.parents for name in names):
                del self._folders[watch]
                with contextlib.suppress(OSError):  # gone with it
                    self._inotify.rm_watch(watch)

    # What has happened

    def _changes(self) -> set[Path]:
        candidates: set[Path] = set()
        looks_everywhere = False
        for event in self._inotify.read(timeout=0):
            folders = self._folders.get(event.wd)
            if event.mask & flags.Q_OVERFLOW:
                looks_everywhere = True
            elif folders is None:  # the last words of one that has gone
                continue
            elif event.mask & GONE:
                for folder in list(folders):
                    self._forget_below(folder)
                looks_everywhere = True
            elif event.mask & flags.ISDIR:
                for folder in list(folders):
                    self._forget_below(folder / event.name)
                looks_everywhere = True
            else:
                candidates.update(folder / event.name for folder in folders)
        known = set(self._snapshot.files)
        if looks_everywhere or not candidates <= known:
            changed = set(self._snapshot.passers(candidates - known))
            self._watch()
            if looks_everywhere:
                changed.update(self._snapshot.additions())
            # Of a module that was imported a moment ago, or in a folder that is watched since.
            changed |= candidates.intersection(self._snapshot.files) - known
        else:
            changed = set()
        return changed.union(self._snapshot.changes(None if looks_everywhere else candidates & known))
