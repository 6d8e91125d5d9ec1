"""Files that root creates for another user.

The user may be able to change the directory between any two calls. So root opens the directory once and works
in it by its descriptor, or acts as the user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_STEPS = 1000
"""Directories and links to follow in a path. The kernel gives up sooner."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The user and the group of the files that root creates; -1 leaves them root's."""

    uid: int = -1
    gid: int = -1
    groups: tuple[int, ...] = ()

    @contextlib.contextmanager
    def at(self, path: str | os.PathLike[str]) -> Iterator[Folder]:
        """Open the directory of a file. Root acts as the owner, unless only root may change the directory.

        A process that does not run as root acts as itself. PermissionError if root may not become the owner.
        """
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(Folder.of(path))
            if os.geteuid() == 0 and not folder.is_safe:
                stack.enter_context(self._acting())
                folder = stack.enter_context(Folder.of(path))
            yield folder

    @contextlib.contextmanager
    def _acting(self) -> Iterator[None]:
        gid, groups = os.getegid(), os.getgroups()
        try:
            if self.gid != -1:
                os.setgroups(self.groups)
                os.setegid(self.gid)
            if self.uid != -1:
                os.seteuid(self.uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)

    def open(self, path: str | os.PathLike[str]) -> int:
        """Open a file for appending, such that the owner can open it again later; OSError if it fails.

        In a directory that others may change, root refuses a link and a file with several names.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        with self.at(path) as folder:
            flags |= 0 if folder.is_safe else os.O_NOFOLLOW
            try:
                descriptor = os.open(folder.name, flags | os.O_EXCL, 0o644, dir_fd=folder.descriptor)
            except FileExistsError:
                descriptor = os.open(folder.name, flags, 0o644, dir_fd=folder.descriptor)
            else:
                if is_of_root(os.path.dirname(os.path.abspath(path))):
                    os.fchown(descriptor, self.uid, self.gid)
        if not folder.is_safe and not _has_one_name(descriptor):
            os.close(descriptor)
            reason = "other users may change its directory: root writes only to a regular file with one name"
            raise PermissionError(errno.EPERM, reason)
        os.set_blocking(descriptor, True)
        return descriptor


@dataclass(frozen=True, slots=True)
class Folder:
    """The open directory of a file. Calls with ``dir_fd=descriptor`` work in it, even after a rename."""

    descriptor: int
    name: str
    is_safe: bool
    """True if the process is not root, or if only root may change the directory."""

    @classmethod
    @contextlib.contextmanager
    def of(cls, path: str | os.PathLike[str]) -> Iterator[Folder]:
        folder, name = os.path.split(os.path.abspath(path))
        descriptor = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
        try:
            yield cls(descriptor, name, os.geteuid() != 0 or not _is_shared(os.fstat(descriptor)))
        finally:
            os.close(descriptor)

    def status(self) -> os.stat_result:
        """Return the status of the file or link that now has the name."""
        return os.stat(self.name, dir_fd=self.descriptor, follow_symlinks=False)

    def has(self, descriptor: int) -> bool:
        """Return whether the name still leads to this open file."""
        try:
            return os.path.samestat(self.status(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def unlink_same(self, inode: Sequence[int]) -> None:
        """Remove the file if it still has this device and inode."""
        status = self.status()
        if (status.st_dev, status.st_ino) == tuple(inode):
            os.unlink(self.name, dir_fd=self.descriptor)


NO_OWNER = Owner()


def _has_one_name(descriptor: int) -> bool:
    """Return whether an open file is a regular file, and the opened name its only hard link."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        return False
    with contextlib.suppress(FileNotFoundError):  # no /proc
        # The user can remove the opened name after the open; then st_nlink counts another name.
        return not os.readlink(f"/proc/self/fd/{descriptor}").endswith(" (deleted)")
    return True


def _is_shared(status: os.stat_result) -> bool:
    """Return whether users other than root may change a directory."""
    return status.st_uid != 0 or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def unlink_same(path: str, inode: Sequence[int]) -> None:
    """Remove a file if it still has this device and inode; OSError if the process may not remove it."""
    with Folder.of(path) as folder:
        folder.unlink_same(inode)


def is_of_root(folder: str) -> bool:
    """Return whether only root can change a folder's entries, and the folders and links in its path."""
    here, left = "/", folder.split("/")[::-1]
    try:
        for _ in range(MOST_STEPS):
            status = os.lstat(here)
            path = os.path.join(here, left.pop()) if left else here
            # In a sticky directory only root can rename root's files.
            is_kept = path != here and status.st_mode & stat.S_ISVTX and os.lstat(path).st_uid == 0
            if _is_shared(status) and not (status.st_uid == 0 and is_kept):
                return False
            if os.path.islink(path):
                target = os.readlink(path)
                left += target.split("/")[::-1]
                here = "/" if target.startswith("/") else here
            elif not left and path == here:
                return stat.S_ISDIR(status.st_mode)
            else:
                here = os.path.normpath(path)  # safe, as the path has no links
    except OSError:
        pass
    return False
