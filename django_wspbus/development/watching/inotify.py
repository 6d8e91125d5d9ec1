"""inotify, by which Linux reports changes in folders; from the standard library alone, as the launcher is."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF = 0x400, 0x800
Q_OVERFLOW, IGNORED, ONLYDIR, ISDIR = 0x4000, 0x8000, 0x1000000, 0x40000000

MASK = (
    *(MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE),
    *(DELETE_SELF, MOVE_SELF, ONLYDIR),
)
EVENT_HEADER = struct.Struct("iIII")
"""The watch, the mask, a cookie, and the length of the name that follows."""

AT_ONCE = 2**16
"""Bytes that are read at once."""


class Event(NamedTuple):
    """A change in a watched folder. ``name`` is empty if it is one of the folder itself."""

    watch: int
    mask: int
    name: str

    @property
    def is_folder(self) -> bool:
        return bool(self.mask & ISDIR)


class Inotify:
    """An instance of inotify. Raises OSError where the system has none, or no more for this user."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = _call(self._libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    def add(self, folder: str) -> int:
        """Watch a folder; return the number of the watch, the same for all names of a folder."""
        return _call(self._libc.inotify_add_watch, self._descriptor, os.fsencode(folder), sum(MASK))

    def remove(self, watch: int) -> None:
        """Watch a folder no longer; OSError if it is gone, and its watch with it."""
        _call(self._libc.inotify_rm_watch, self._descriptor, watch)

    def read(self) -> Iterator[Event]:
        """Yield the events that are there."""
        try:
            data = os.read(self._descriptor, AT_ONCE)
        except BlockingIOError:
            return
        start = 0
        while start < len(data):
            watch, mask, _, length = EVENT_HEADER.unpack_from(data, start)
            start += EVENT_HEADER.size + length
            yield Event(watch, mask, os.fsdecode(data[start - length : start].rstrip(b"\0")))


def _call(function: Callable[..., int], *arguments: int | bytes) -> int:
    result = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
