"""The sockets that systemd, or another supervisor with its protocol, passed to this process."""

from __future__ import annotations

import errno
import os
import socket

from ..successor.program import SYSTEMD_FIRST
from ..successor.start import TYPED
from ..wspbus import Refusal

LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class PassedSockets:
    """The passed sockets, with their names."""

    def __init__(self, sockets: list[tuple[str, socket.socket]]) -> None:
        self._sockets = sockets

    @classmethod
    def take(cls) -> PassedSockets:
        """Take the sockets that LISTEN_FDS counts, if LISTEN_PID is this process."""
        # Twisted, which daphne in INSTALLED_APPS imports, removes the variables from os.environ.
        given_first = (TYPED.environment.get(key, "") for key in LISTEN_VARIABLES)
        pid, count, names = map(os.environ.pop, LISTEN_VARIABLES, given_first)
        if pid != str(os.getpid()) or not count.isdigit():
            return cls([])
        given = names.split(":")
        sockets = []
        for index in range(int(count)):
            descriptor = SYSTEMD_FIRST + index
            name = given[index] if index < len(given) else ""
            try:
                os.set_inheritable(descriptor, False)
                sockets.append((name, socket.socket(fileno=descriptor)))
            except OSError as error:
                reason = f"descriptor {descriptor} is no socket: {error.strerror}"
                raise Refusal(f"LISTEN_FDS is {count}, but {reason}.") from error
        return cls(sockets)

    def named(self, name: str | None, claimed: set[str]) -> list[socket.socket]:
        """Return the sockets of a name; for None, those whose names are not ``claimed`` by a setting."""
        found = [
            sock
            for given, sock in self._sockets
            if (given == name if name is not None else given not in claimed)
        ]
        if not found:
            names = ", ".join(given or "one without a name" for given, _ in self._sockets) or "none"
            raise OSError(errno.ENOENT, f"systemd passed no such socket (it passed {names})")
        for sock in found:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "the socket that systemd passed does not listen")
        return found

    def hand_over(self) -> None:
        """Hand the sockets over to the program that this process is about to execute."""
        if self._sockets:
            names = ":".join(name for name, _ in self._sockets)
            values = (str(os.getpid()), str(len(self._sockets)), names)
            os.environ.update(zip(LISTEN_VARIABLES, values, strict=True))
        for _, sock in self._sockets:
            os.set_inheritable(sock.detach(), True)
        self._sockets = []

    def close(self) -> None:
        for _, sock in self._sockets:
            sock.close()
        self._sockets = []
