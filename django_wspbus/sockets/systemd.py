"""The sockets that systemd, or another supervisor with its protocol, passed to this process."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable

from ..conf.addresses import Address
from ..successor.program import SYSTEMD_FIRST
from ..successor.start import TYPED
from ..wspbus import Refusal
from .binding import resolve

LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class PassedSockets:
    """The passed sockets, with their names."""

    def __init__(self, sockets: list[tuple[str, socket.socket]]) -> None:
        self._sockets = sockets
        self._at: dict[Address, socket.socket] = {}

    @classmethod
    def take(cls) -> PassedSockets:
        """Take the sockets that LISTEN_FDS counts, if LISTEN_PID is this process."""
        pid, count, names = _variables()
        for name in LISTEN_VARIABLES:
            os.environ.pop(name, None)
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

    def match(self, addresses: Iterable[Address]) -> None:
        """Find the sockets that listen on addresses of the settings; these count as bound, by `at`."""
        for address in addresses:
            for _, sock in self._sockets:
                if sock not in self._at.values() and is_at(sock, address):
                    self._at[address] = sock
                    break

    def at(self, address: Address) -> socket.socket | None:
        """Return the socket that listens on an address, if there is one."""
        return self._at.get(address)

    def named(self, name: str | None, claimed: set[str]) -> list[socket.socket]:
        """Return the sockets of a name; for None, those that no setting claims by name or by address."""
        matched = self._at.values()
        found = [
            sock
            for given, sock in self._sockets
            if (given == name if name is not None else given not in claimed and sock not in matched)
        ]
        if not found:
            names = ", ".join(given or "one without a name" for given, _ in self._sockets) or "none"
            raise OSError(errno.ENOENT, f"systemd passed no such socket (it passed {names})")
        for sock in found:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "the socket that systemd passed does not listen")
        return found

    def others(self, bound: Iterable[socket.socket]) -> list[socket.socket]:
        """Return the passed sockets that are not among those bound."""
        taken = list(bound)
        return [sock for _, sock in self._sockets if sock not in taken]

    def hand_over(self) -> None:
        """Hand the sockets over to the program that this process is about to execute."""
        if self._sockets:
            names = ":".join(name for name, _ in self._sockets)
            values = (str(os.getpid()), str(len(self._sockets)), names)
            os.environ.update(zip(LISTEN_VARIABLES, values, strict=True))
        for _, sock in self._sockets:
            os.set_inheritable(sock.detach(), True)
        self._sockets, self._at = [], {}

    def close(self) -> None:
        for _, sock in self._sockets:
            sock.close()
        self._sockets, self._at = [], {}


def _variables() -> list[str]:
    """Return the values of LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES."""
    # Twisted, which daphne in INSTALLED_APPS imports, removes the variables from os.environ.
    given_first = [TYPED.environment.get(key, "") for key in LISTEN_VARIABLES]
    return [os.environ.get(*pair) for pair in zip(LISTEN_VARIABLES, given_first, strict=True)]


def is_passed(address: Address) -> bool:
    """Return whether systemd has passed to this process a socket on an address, before it is taken."""
    pid, count, _ = _variables()
    if pid != str(os.getpid()) or not count.isdigit():
        return False
    for descriptor in range(SYSTEMD_FIRST, SYSTEMD_FIRST + int(count)):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            if is_at(sock, address):
                return True
    return False


def is_at(sock: socket.socket, address: Address) -> bool:
    """Return whether a socket listens on an address of the settings."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    if sock.family == socket.AF_UNIX or address.kind == "unix":
        return address.kind == "unix" and sock.getsockname() == address.path
    if address.kind == "systemd" or not address.port:
        return False
    with contextlib.suppress(OSError):  # the name of the address is unknown
        family, name = resolve(address)
        return bool(sock.family == family and sock.getsockname()[:2] == name[:2])
    return False
