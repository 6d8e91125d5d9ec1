"""The events that wake a watch of files: inotify if there is ``inotify_simple``, or else the clock."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from .mounts import Mounts

try:
    import inotify_simple
except ImportError:
    inotify_simple = None

POLLED = 0.25
"""Seconds between two looks at the files where nothing tells of changes."""


class Events(Protocol):
    """A source of hints: who waits here looks for itself what has changed, if anything."""

    def arm(self, folders: Mapping[str, int]) -> bool:
        """Give hints about these folders, and no others: path -> inode. Return whether any of them is new."""

    def wait(self, timeout: float | None) -> None:
        """Return when something may have changed, or the seconds are over."""

    def close(self) -> None:
        """Give no more hints."""


class Polling:
    """Hints at a change at every turn; looking may take a fifth of the time at most."""

    def __init__(self) -> None:
        self._returned: float | None = None

    def arm(self, folders: Mapping[str, int]) -> bool:
        return False

    def wait(self, timeout: float | None) -> None:
        took = 0.0 if self._returned is None else time.monotonic() - self._returned
        pause = max(POLLED, 4 * took)
        time.sleep(pause if timeout is None else max(0.0, min(timeout, pause)))
        self._returned = time.monotonic()

    def close(self) -> None:
        pass


class Inotify:
    """Sleeps until the kernel tells of a name in one of the folders that ``is_of_interest(name, is_folder)``.

    It also polls if one of them raises no events, where that ``is_suspected``. Raises OSError or
    AttributeError where there is no inotify, or no more of it to be had.
    """

    def __init__(self, is_of_interest: Callable[[str, bool], bool], is_suspected: bool = True) -> None:
        self._inotify = inotify_simple.INotify()
        self._is_of_interest = is_of_interest
        self._is_suspected = is_suspected
        self._armed: dict[tuple[str, int], int] = {}
        self._polling: Polling | None = None
        flags = inotify_simple.flags
        self._folder, self._unnamed = flags.ISDIR, flags.Q_OVERFLOW | flags.DELETE_SELF | flags.MOVE_SELF
        self._mask = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.MODIFY
        self._mask |= flags.CLOSE_WRITE | flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR

    def arm(self, folders: Mapping[str, int]) -> bool:
        wanted = set(folders.items())  # a folder that was put in another's place has an inode of its own
        armed = {key: number for key, number in self._armed.items() if key in wanted}
        for number in set(self._armed.values()).difference(armed.values()):
            self._unwatch(number)
        self._armed, kept = armed, len(armed)
        mounts = Mounts()
        if self._is_suspected and any(mounts.silent(path) for path, _ in wanted):
            self._polling = self._polling or Polling()
        for path, inode in sorted(wanted.difference(armed)):
            try:
                self._armed[path, inode] = self._inotify.add_watch(path, self._mask)
            except OSError as error:
                if error.errno == errno.ENOSPC:  # fs.inotify.max_user_watches
                    self._polling = self._polling or Polling()
                # Otherwise it is gone, or not ours to read: the next look tells.
        return len(armed) > kept

    def wait(self, timeout: float | None) -> None:
        if self._polling:
            self._polling.wait(timeout)
            timeout = 0
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            events = self._inotify.read(None if left is None else int(left * 1000 + 1) if left else 0)
            if any(self._is_hint(event) for event in events) or left == 0:
                return

    def close(self) -> None:
        self._inotify.close()

    def _is_hint(self, event: inotify_simple.Event) -> bool:
        if event.mask & self._unnamed:
            return True
        return bool(event.name) and self._is_of_interest(event.name, bool(event.mask & self._folder))

    def _unwatch(self, number: int) -> None:
        try:
            self._inotify.rm_watch(number)
        except OSError:
            pass  # the kernel has done so itself, as the folder is gone


def events(is_of_interest: Callable[[str, bool], bool], poll: bool | None = None) -> Events:
    """Return the best source of hints there is here; ``poll``: as POLL of AUTORELOAD."""
    if inotify_simple is not None and not poll:
        try:
            return Inotify(is_of_interest, is_suspected=poll is None)
        except (OSError, AttributeError):  # the limits of this user, or a system that has no inotify
            pass
    return Polling()
