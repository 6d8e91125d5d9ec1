"""The PID file of a site."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from ..plugin import Plugin
from ..wspbus import Bus, Refusal


class PIDFile(Plugin):
    """Holds the PID of the site process in a file, which at the same time keeps a second one from starting.

    The file appears whole or not at all. One that a dead process left is replaced; that of a live
    one is a `Refusal`, and so is a symbolic link or a file that holds no PID.
    """

    role = "site"

    def __init__(self, bus: Bus, path: str | os.PathLike[str]) -> None:
        super().__init__(bus)
        self.path = Path(os.path.abspath(path))
        self._inode: tuple[int, int] | None = None

    def subscribe(self) -> None:
        super().subscribe()
        self._adopt()

    def start(self) -> None:
        if self._inode is not None:
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self._write(temporary)
            try:
                self._claim(temporary)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise Refusal(f"The PID file {self.path} cannot be written: {error.strerror}.") from error
        self.bus.log(f"PID {os.getpid()} written to {self.path}.")

    start.priority = 10  # type: ignore[attr-defined]

    def _adopt(self) -> None:
        """Take the file for ours if an earlier program of this very process has left it."""
        with contextlib.suppress(OSError, ValueError):
            status = self.path.lstat()
            if stat.S_ISREG(status.st_mode) and read_pid(self.path) == os.getpid():
                self._inode = (status.st_dev, status.st_ino)

    def _write(self, temporary: Path) -> None:
        temporary.unlink(missing_ok=True)  # of a process that had this PID, and was killed
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "w") as file:
            file.write(f"{os.getpid()}\n")

    def _claim(self, temporary: Path) -> None:
        for _ in range(10):  # each time, somebody else may be as quick
            try:
                os.link(temporary, self.path)  # unlike a rename, it never replaces a file
            except FileExistsError:
                self._remove_stale()
                continue
            status = self.path.lstat()
            self._inode = (status.st_dev, status.st_ino)
            return
        raise OSError(errno.EBUSY, "other processes keep claiming it")

    def _remove_stale(self) -> None:
        try:
            status = self.path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise Refusal(f"The PID file {self.path} is in the way: it is no regular file.")
            pid = read_pid(self.path)
        except FileNotFoundError:
            return
        except ValueError:
            raise Refusal(f"The PID file {self.path} is in the way: it holds no PID.") from None
        if pid is not None and pid != os.getpid() and is_alive(pid):
            raise Refusal(f"The site is running already: PID {pid}{_called(pid)}, says {self.path}.")
        with contextlib.suppress(FileNotFoundError):
            if self.path.lstat().st_ino == status.st_ino:
                self.path.unlink()

    def exit(self) -> None:
        """Remove the file, if it is still ours; a restart keeps it."""
        if not self.bus.execv:
            self.remove()

    exit.priority = 95  # type: ignore[attr-defined]

    def remove(self) -> None:
        inode, self._inode = self._inode, None
        try:
            status = self.path.lstat()
            if inode == (status.st_dev, status.st_ino) and read_pid(self.path) == os.getpid():
                self.path.unlink()
                self.bus.log(f"PID file {self.path} removed.")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # its directory may be root's, and we no longer are
            self.bus.log(f"The PID file {self.path} stays: {error}", level=30)

    def abort(self) -> None:
        """Leave no file behind where the process is ended at once."""
        if self._inode is not None:
            self.remove()


def read_pid(path: Path) -> int | None:
    """Return the PID that a file holds, None if it is empty; ValueError if it holds something else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        text = file.read(64).strip()
    if not text:
        return None
    pid = int(text)
    if pid <= 0:
        raise ValueError(pid)
    return pid


def is_alive(pid: int) -> bool:
    """Whether there is a process of that PID, of any user."""
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
