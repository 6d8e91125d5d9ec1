"""Giving up root once the sockets are bound."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd

from ..plugin import Plugin
from ..wspbus import Bus, Refusal


class DropPrivileges(Plugin):
    """Becomes another user and group: supplementary groups, gid, uid, umask, in that order.

    ``user``, ``group``: names or numbers; the group is the user's own if left out. Log files that
    are open are given to the user, who may then reopen them. What cannot be given up is a `Refusal`.
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
        self.uid, self.gid, self.groups = identity(user, group)
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
            raise Refusal(f"There is no user {self.uid} whose group to take: GROUP must name one.")
        if was_root:
            self._give_log_files()
        try:
            if was_root:
                os.setgroups(self.groups)
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
        """Make sure that there is no way back; a sandbox may pretend that a call has succeeded."""
        if self.uid not in (-1, 0) and was_root:
            for regain in (os.setuid, os.setgid) if self.gid != 0 else (os.setuid,):
                try:
                    regain(0)
                except PermissionError:
                    continue
                raise Refusal("The privileges of root could be regained after they were dropped.")
        if self.uid != -1 and os.getresuid() != (self.uid,) * 3:
            raise Refusal(f"The process did not become uid {self.uid}.")
        if self.gid != -1 and os.getresgid() != (self.gid,) * 3:
            raise Refusal(f"The process did not become gid {self.gid}.")

    def _give_log_files(self) -> None:
        for path in log_files():
            with contextlib.suppress(OSError):
                os.chown(path, self.uid, self.gid, follow_symlinks=False)


def identity(user: str | int | None, group: str | int | None) -> tuple[int, int, list[int]]:
    """Return (uid, gid, supplementary groups), -1 for what stays; KeyError if there is no such name."""
    uid = gid = -1
    groups = []
    if user is not None:
        try:
            entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
        except KeyError:
            if not isinstance(user, int):
                raise
            uid = user  # as in a container, where users are numbers
        else:
            uid, gid = entry.pw_uid, entry.pw_gid
            groups = os.getgrouplist(entry.pw_name, gid)
    if group is not None:
        gid = group if isinstance(group, int) else grp.getgrnam(group).gr_gid
        groups = [gid, *(each for each in groups if each != gid)]
    return uid, gid, groups


def log_files() -> set[str]:
    """Return the files that handlers of Python logging have open."""
    names = list(logging.root.manager.loggerDict)
    loggers = [logging.root, *(logging.getLogger(name) for name in names)]
    handlers = [handler for each in loggers for handler in each.handlers]
    return {handler.baseFilename for handler in handlers if isinstance(handler, logging.FileHandler)}
