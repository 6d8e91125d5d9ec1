"""The names of control sockets: where a site listens, and where a client looks for sites."""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
from dataclasses import dataclass

HAS_ABSTRACT_SOCKETS = sys.platform == "linux"

UNIX_SOCKETS = "/proc/net/unix"
"""The file in which Linux lists the Unix sockets of the network namespace."""

LISTENS = 0x10000
"""The flag of a listening socket there (__SO_ACCEPTCON)."""

BACKLOG = 128

_NAME = re.compile(r"@django-wspbus/(?P<uid>[0-9]{1,10})/(?P<pid>[0-9]{1,10})/(?P<random>[0-9a-f]{16})")
_FILE = re.compile(r"(?P<pid>[0-9]{1,10})-(?P<random>[0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a control socket: an abstract one ("@" and the name), or the path of a file."""

    text: str
    uid: int | None = None
    """The user that the name claims; None: the path is that of CONTROL."""
    pid: int | None = None
    """The PID that the name claims."""

    @property
    def address(self) -> str:
        """The name as `socket` has it."""
        return "\0" + self.text[1:] if self.text.startswith("@") else self.text


def new_name(pid: int, folder: str | None = None) -> Name:
    """Return a new name for a site of this user; ``folder``: see `private_folder`.

    Its random part keeps other users from binding it first. It is no secret: the system lists it.
    """
    uid, random = os.geteuid(), os.urandom(8).hex()
    if folder is None:
        return Name(f"@django-wspbus/{uid}/{pid}/{random}", uid, pid)
    return Name(os.path.join(folder, f"{pid}-{random}"), uid, pid)


def listen(pid: int) -> tuple[socket.socket, Name]:
    """Return a new control socket, and its name; OSError if it cannot be made."""
    name = new_name(pid, None if HAS_ABSTRACT_SOCKETS else private_folder())
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(name.address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock, name


def file_of(sock: socket.socket) -> tuple[str, tuple[int, int]] | None:
    """Return the path of a control socket, and its device and inode; None if it has no file."""
    path = sock.getsockname()
    if not isinstance(path, str) or not path or path.startswith("\0"):  # an abstract name is bytes
        return None
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return path, (status.st_dev, status.st_ino)


def private_folder() -> str:
    """Return the folder for the sockets of this user, and make it if there is none.

    PermissionError if it is a link, or if another user owns it or may look into it.
    """
    path = folder_of(os.geteuid())
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        check_folder(path, os.geteuid())
    return path


def folder_of(uid: int) -> str:
    import tempfile  # 6 ms of the start of each command, and only needed without abstract sockets

    return os.path.join(tempfile.gettempdir(), f"django-wspbus-{uid}")


def check_folder(path: str, uid: int) -> None:
    """Raise PermissionError unless the path is a folder which only this user, or root, can open."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(1, "It is no folder", path)
    if status.st_uid != uid or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(1, f"It is not private to the user with the uid {uid}", path)


def listed() -> list[Name]:
    """Return the names of the control sockets on this machine, in this network namespace."""
    return _abstract() if HAS_ABSTRACT_SOCKETS else in_folder(folder_of(os.geteuid()), os.geteuid())


def _abstract() -> list[Name]:
    with open(UNIX_SOCKETS, errors="replace") as file:
        found = map(read_line, file)
        return sorted({name for name in found if name is not None}, key=lambda name: name.text)


def read_line(line: str) -> Name | None:
    """Return the name in a line of `UNIX_SOCKETS`, if that is a control socket which listens."""
    fields = line.split(maxsplit=7)  # Num RefCount Protocol Flags Type St Inode Path
    match = _NAME.fullmatch(fields[7].rstrip("\n")) if len(fields) == 8 else None
    if match is None or not int(fields[3], 16) & LISTENS:
        return None
    return Name(match[0], int(match["uid"]), int(match["pid"]))


def in_folder(folder: str, uid: int) -> list[Name]:
    """Return the names of the sockets in the folder of a user; none if the folder is not private."""
    try:
        check_folder(folder, uid)
        entries = sorted(os.listdir(folder))
    except OSError:
        return []
    matches = filter(None, map(_FILE.fullmatch, entries))
    return [Name(os.path.join(folder, match[0]), uid, int(match["pid"])) for match in matches]
