"""The events that wake a watch of files: inotify where the kernel reports changes, the clock elsewhere."""

from __future__ import annotations

import contextlib
import errno
import math
import select
import time
from collections.abc import Mapping

from ...system.waker import Waker
from .mounts import Mounts

try:
    from inotify_simple import INotify, flags
except ImportError:  # not Linux, or not installed
    INotify = flags = None

POLLED = 1.0
"""Seconds between two looks at the files where nothing reports changes."""

Hint = tuple[str, bool]
"""The path of a file or folder that may have changed; True for a folder."""


class Events:
    """Waits for changes in folders. It polls where there is no inotify, or not enough of it."""

    def __init__(self) -> None:
        self._inotify: INotify | None = None
        if INotify is not None:
            with contextlib.suppress(OSError):  # the limit of instances
                self._inotify = INotify()
        self._watches: dict[tuple[str, int], int] = {}
        self._names: dict[int, set[str]] = {}
        """The paths of each watch: a folder may have several, by symbolic links."""
        self._why_polling = ""
        self._silent: set[str] = set()
        self._returned: float | None = None
        """The end of the last wait, after which its caller may look at the files."""
        self._next_look: float | None = None
        self._waker = Waker()

    def close(self) -> None:
        self._waker.close()
        if self._inotify is not None:
            self._inotify.close()

    def wake(self) -> None:
        """End a `wait` of another thread."""
        self._waker.wake()

    @property
    def polls(self) -> bool:
        return bool(self._why_polling or self._silent)

    @property
    def means(self) -> str:
        """The means by which changes are noticed, as the end of a sentence."""
        if self._why_polling:
            return f"by polling, as {self._why_polling}"
        if self._silent:
            silent = ", ".join(sorted(self._silent))
            return f"with inotify, and by polling of {silent}, where changes raise no events"
        return "with inotify"

    def arm(self, folders: Mapping[str, int], poll: bool | None) -> bool:
        """Report changes in these folders, path -> inode, and no others; return True if one is new or gone.

        ``poll``: POLL of AUTORELOAD.
        """
        self._why_polling = ""
        if poll or self._inotify is None:
            setting = 'WSPBUS["AUTORELOAD"]["POLL"] is True'
            self._why_polling = setting if poll else "inotify is not available"
            folders = {}
        mounts, self._silent = Mounts(), set()
        if poll is None:
            self._silent = {str(mount) for folder in folders if (mount := mounts.silent(folder))}
        return self._inotify is not None and self._watch(self._inotify, folders)

    def _watch(self, inotify: INotify, folders: Mapping[str, int]) -> bool:
        wanted = set(folders.items())  # a folder that was put in another's place has an inode of its own
        kept = {key: number for key, number in self._watches.items() if key in wanted}
        for number in set(self._watches.values()).difference(kept.values()):
            with contextlib.suppress(OSError):  # the folder is gone
                inotify.rm_watch(number)
        added: dict[tuple[str, int], int] = {}
        is_outdated = False
        for path, inode in sorted(wanted.difference(kept)):
            try:
                added[path, inode] = inotify.add_watch(path, mask())
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    self._why_polling = "the limit fs.inotify.max_user_watches is reached"
                # A folder that is gone by now leaves its parent unwatched; one that may not be read does not.
                is_outdated |= error.errno in (errno.ENOENT, errno.ENOTDIR)
        self._watches = kept | added
        self._names = {}
        for (path, _), number in self._watches.items():
            self._names.setdefault(number, set()).add(path)
        return bool(added) or is_outdated

    def wait(self, timeout: float | None = None) -> set[Hint] | None:
        """Wait until files may have changed; return hints, or None if any file may have changed.

        The hints are empty after ``timeout`` seconds, and after `wake`.
        """
        pauses = [] if timeout is None else [max(timeout, 0.0)]
        if self.polls:
            pauses.append(max(self._time_of_look() - time.monotonic(), 0.0))
        poll = select.poll()
        for source in (self._waker, self._inotify):
            if source is not None:
                poll.register(source, select.POLLIN)
        ready = {number for number, _ in poll.poll(math.ceil(min(pauses) * 1000) if pauses else None)}
        self._returned = time.monotonic()
        if self._waker.fileno() in ready:
            self._waker.clear()
        if self.polls and (not ready or self._returned >= self._time_of_look()):
            self._next_look = None
            return None
        return self._hints(self._inotify) if self._inotify is not None else set()

    def _time_of_look(self) -> float:
        """Return the time of the next look at all files, which takes a fifth of the time at most."""
        if self._next_look is None:
            now = time.monotonic()
            self._next_look = now + max(POLLED, 4 * (now - (self._returned or now)))
        return self._next_look

    def _hints(self, inotify: INotify) -> set[Hint] | None:
        hints: set[Hint] = set()
        looks_everywhere = False
        for event in inotify.read(timeout=0):
            if event.mask & flags.IGNORED:
                looks_everywhere |= self._forget(event.wd)
            elif event.mask & (flags.Q_OVERFLOW | flags.DELETE_SELF | flags.MOVE_SELF):
                looks_everywhere = True
                if event.mask & flags.Q_OVERFLOW:  # ends of watches may be among what is lost
                    self._watches = {}
            elif event.name:
                folders, is_folder = self._names.get(event.wd, set()), bool(event.mask & flags.ISDIR)
                hints.update((f"{folder.rstrip('/')}/{event.name}", is_folder) for folder in folders)
        return None if looks_everywhere else hints

    def _forget(self, watch: int) -> bool:
        """Forget a watch that has ended; return True if it was known.

        Another folder may get the path and the inode of the one that is gone.
        """
        known = len(self._watches)
        self._watches = {key: number for key, number in self._watches.items() if number != watch}
        return len(self._watches) < known


def mask() -> int:
    """Return the kinds of events that say that a file or folder may have changed."""
    moved = flags.MOVED_FROM | flags.MOVED_TO | flags.MOVE_SELF | flags.DELETE_SELF
    changed = flags.MODIFY | flags.ATTRIB | flags.CLOSE_WRITE | flags.CREATE | flags.DELETE
    return int(moved | changed | flags.ONLYDIR)
