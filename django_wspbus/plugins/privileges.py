"""The change from root to another user, once the sockets are bound."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import shutil
import stat
import tempfile

from ..system.ownership import Owner, is_of_root
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin


class DropPrivileges(Plugin):
    """Sets supplementary groups, gid, uid and umask of the site process, in that order.

    ``user``, ``group``: names or numbers; ``group`` defaults to the user's own. Open log files are made
    writable for the user, so that it can reopen them. A `Refusal` if the process cannot drop its privileges.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        user: str | int | None = None,
        group: str | int | None = None,
        umask: int | None = None,
    ) -> None:
        super().__init__(bus)
        self.owner = identity(user, group)
        self.uid, self.gid = self.owner.uid, self.owner.gid
        self.umask = umask
        self._done = False

    def start(self) -> None:
        if self._done:
            return
        if (self.uid, self.gid) != (-1, -1):
            self._drop()
        if self.umask is not None:
            os.umask(self.umask)
        self._done = True

    start.priority = 30  # type: ignore[attr-defined]

    def _drop(self) -> None:
        was_root = os.geteuid() == 0
        if was_root and self.uid not in (-1, 0) and self.gid == -1:
            raise Refusal(f"USER {self.uid} has no entry that names its group: set GROUP as well.")
        if was_root:
            self._give_log_files()
        try:
            if was_root:
                os.setgroups(self.owner.groups)
            if self.gid != -1:
                os.setresgid(self.gid, self.gid, self.gid)
            if self.uid != -1:
                os.setresuid(self.uid, self.uid, self.uid)
        except PermissionError:
            raise Refusal(
                f"This process (uid {os.getuid()}, gid {os.getgid()}) may not become "
                f"uid {self.uid}, gid {self.gid}: only root may."
            ) from None
        self._verify(was_root)
        self.bus.log(f"Running as uid {os.getuid()}, gid {os.getgid()}, groups {os.getgroups()}.")

    def _verify(self, was_root: bool) -> None:
        """Check that root cannot be regained, because a sandbox may only pretend that a call succeeds."""
        if self.uid not in (-1, 0) and was_root:
            for regain in (os.setuid, os.setgid) if self.gid != 0 else (os.setuid,):
                try:
                    regain(0)
                except PermissionError:
                    continue
                raise Refusal("The process dropped root's privileges, but could regain them.")
        if self.uid != -1 and os.getresuid() != (self.uid,) * 3:
            raise Refusal(f"The process did not become uid {self.uid}.")
        if self.gid != -1 and os.getresgid() != (self.gid,) * 3:
            raise Refusal(f"The process did not become gid {self.gid}.")

    def _give_log_files(self) -> None:
        for path, stream in log_files():
            try:
                with self.owner.at(path):
                    if os.geteuid() != 0:
                        _open_again(path, stream)
                    elif is_of_root(os.path.dirname(path)):
                        os.chown(path, self.uid, self.gid, follow_symlinks=False)
            except FileNotFoundError:
                pass  # the user creates it
            except OSError as error:
                reason = f"uid {self.uid} may not write it ({error.strerror})"
                self.bus.log(f"The log file {path} was not given to the user: {reason}.", level=30)


def _open_again(path: str, stream: int | None) -> None:
    """Reopen a log file as the acting user, under the number of root's descriptor.

    If the user may not write the file, a copy replaces it. Root does not change the owner of a file in a
    directory of the user, because the user may have given the name to any other file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except PermissionError:
        _replace_by_copy(path)
        descriptor = os.open(path, flags)
    os.set_blocking(descriptor, True)
    if stream is not None:
        os.dup2(descriptor, stream, inheritable=False)
    os.close(descriptor)


def _replace_by_copy(path: str) -> None:
    descriptor, copy = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as new, open(path, "rb") as old:
            shutil.copyfileobj(old, new)
            os.fchmod(new.fileno(), stat.S_IMODE(os.fstat(old.fileno()).st_mode))
        os.rename(copy, path)
    except BaseException:
        os.unlink(copy)
        raise


def identity(user: str | int | None, group: str | int | None) -> Owner:
    """Return the user and groups that a site becomes; KeyError if a name is unknown."""
    uid = gid = -1
    groups: list[int] = []
    if user is not None:
        try:
            entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
        except KeyError:
            if not isinstance(user, int):
                raise
            uid = user  # in a container, users often have only a number
        else:
            uid, gid = entry.pw_uid, entry.pw_gid
            groups = os.getgrouplist(entry.pw_name, gid)
    if group is not None:
        gid = group if isinstance(group, int) else grp.getgrnam(group).gr_gid
        groups = [gid, *(each for each in groups if each != gid)]
    return Owner(uid, gid, tuple(groups))


def log_files() -> list[tuple[str, int | None]]:
    """Return (path, descriptor) for each file handler of Python logging; None for a file that is not open."""
    names = list(logging.root.manager.loggerDict)
    loggers = [logging.root, *(logging.getLogger(name) for name in names)]
    handlers = {handler for each in loggers for handler in each.handlers}
    return [
        (handler.baseFilename, handler.stream.fileno() if handler.stream else None)
        for handler in handlers
        if isinstance(handler, logging.FileHandler)
    ]
