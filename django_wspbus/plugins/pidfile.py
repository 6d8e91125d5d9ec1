"""The PID file, whose lock keeps a second site from starting."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ..system.ownership import NO_OWNER, Folder, Owner
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin

ATTEMPTS = 20
RETRY_INTERVAL = 0.02
"""Seconds between two attempts, while another process may be replacing the file."""

# A child that Python forks shares the lock with its parent, and would keep it after the parent's end.
_held: set[int] = set()


class PIDFile(Plugin):
    """Writes the PID of the site process to a file, and holds a lock on the file.

    The file appears whole or not at all. The site holds the lock (flock) as long as it lives, even over
    restarts; its children do not. Only the lock counts: another process may have the same PID by now. A file
    without a lock is stale, and is replaced. A locked file is a `Refusal`, and so is a link or a file that
    holds no PID.

    ``owner``: the user that the site becomes. ``descriptor``: the open file, if an earlier program of
    this process has handed it over.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        path: str | os.PathLike[str],
        *,
        owner: Owner = NO_OWNER,
        descriptor: int | None = None,
    ) -> None:
        super().__init__(bus)
        self.path = Path(os.path.abspath(path))
        self.owner = owner
        self.descriptor = descriptor
        """The open and locked file; None if the site has no file."""
        if descriptor is not None:
            _held.add(descriptor)

    def start(self) -> None:
        try:
            with self.owner.at(self.path) as folder:
                if self.descriptor is not None:
                    if folder.has(self.descriptor):
                        return
                    _close(self.descriptor)  # the file has been removed
                    self.descriptor = None
                self.descriptor = self._claim(folder)
        except OSError as error:
            raise Refusal(f"The PID file {self.path} cannot be written: {error.strerror}.") from error
        self.bus.log(f"PID {os.getpid()} written to {self.path}.")

    start.priority = 10  # type: ignore[attr-defined]

    def _claim(self, folder: Folder) -> int:
        """Create the file; return it open and locked."""
        temporary = f".{folder.name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):  # left by a killed process that had this PID
            os.unlink(temporary, dir_fd=folder.descriptor)
        descriptor = _open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            self._put(temporary, folder)
        except BaseException:
            _close(descriptor)
            raise
        finally:
            os.unlink(temporary, dir_fd=folder.descriptor)
        return descriptor

    def _put(self, temporary: str, folder: Folder) -> None:
        """Link the file to its name. Unlike a rename, a link never replaces another file."""
        ends = {"src_dir_fd": folder.descriptor, "dst_dir_fd": folder.descriptor}
        for attempt in range(ATTEMPTS):
            try:
                os.link(temporary, folder.name, **ends, follow_symlinks=False)
            except FileExistsError:
                self._remove_stale(folder, is_last=attempt == ATTEMPTS - 1)
            else:
                return
        raise OSError(errno.EBUSY, "other processes keep claiming it")

    def _remove_stale(self, folder: Folder, is_last: bool) -> None:
        """Remove the file of a site that has ended. A `Refusal` if its site lives, or no site wrote it."""
        with contextlib.suppress(FileNotFoundError), self._opened(folder) as descriptor:
            pid = self._read(descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # A process that is replacing a stale file locks it for a moment.
                if is_last or (pid and is_alive(pid)):
                    raise Refusal(
                        f"The site is running already: PID {pid}{_called(pid)}, according to {self.path}."
                    ) from None
                time.sleep(RETRY_INTERVAL)
                return
            if folder.has(descriptor):
                os.unlink(folder.name, dir_fd=folder.descriptor)

    @contextlib.contextmanager
    def _opened(self, folder: Folder) -> Iterator[int]:
        try:
            try:
                descriptor = _open(folder.name, os.O_RDWR | os.O_NONBLOCK, folder)
            except PermissionError:  # another user's file; NFS locks only files that are open for writing
                descriptor = _open(folder.name, os.O_RDONLY | os.O_NONBLOCK, folder)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            raise Refusal(self._not_replaced("it is not a regular file")) from None
        try:
            yield descriptor
        finally:
            _close(descriptor)

    def _read(self, descriptor: int) -> int:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refusal(self._not_replaced("it is not a regular file"))
        try:
            return read_pid(descriptor)
        except ValueError:
            raise Refusal(self._not_replaced("it holds no PID")) from None

    def _not_replaced(self, reason: str) -> str:
        return f"The PID file {self.path} cannot be replaced: {reason}."

    def exit(self) -> None:
        """Remove the file if it is still the site's, unless the bus restarts."""
        if not self.bus.execv:
            self.remove()

    exit.priority = 95  # type: ignore[attr-defined]

    def remove(self) -> None:
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is None or descriptor not in _held:  # not in _held in a forked child
            return
        try:
            with self.owner.at(self.path) as folder:
                if folder.has(descriptor) and read_pid(descriptor) == os.getpid():
                    os.unlink(folder.name, dir_fd=folder.descriptor)
                    self.bus.log(f"PID file {self.path} removed.")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # the directory may be root's, and the site has dropped root
            self.bus.log(f"The PID file {self.path} was not removed: {error}", level=30)
        finally:
            _close(descriptor)

    def abort(self) -> None:
        """Remove the file before the process ends at once."""
        self.remove()


def _open(name: str, flags: int, folder: Folder) -> int:
    descriptor = os.open(name, flags | os.O_NOFOLLOW, 0o644, dir_fd=folder.descriptor)
    _held.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _close_copies() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_copies)


def read_pid(descriptor: int) -> int:
    """Return the PID in a file, 0 if the file is empty; ValueError if it holds no PID."""
    text = os.pread(descriptor, 64, 0).strip()
    pid = int(text) if text else 0
    if text and pid <= 0:
        raise ValueError(f"it holds {pid}")
    return pid


def is_alive(pid: int) -> bool:
    """Return whether any user has a process with this PID."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _called(pid: int) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return ""
