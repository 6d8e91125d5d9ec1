"""The listening sockets, which the launcher holds from one child to the next."""

from __future__ import annotations

import contextlib
import os

from ...successor.program import SYSTEMD_FIRST
from ...successor.state import SocketState
from ...system.ownership import unlink_same


class LauncherSockets:
    """The sockets that the site has bound, and those that systemd has passed, by the numbers it gave them."""

    def __init__(self, states: list[SocketState]) -> None:
        self.states = states
        self.passed: list[int] = []
        if os.environ.get("LISTEN_PID") == str(os.getpid()):
            self.passed = list(range(SYSTEMD_FIRST, SYSTEMD_FIRST + int(os.environ.get("LISTEN_FDS", "0"))))
        for each in states:
            os.set_inheritable(each.descriptor, False)

    @property
    def descriptors(self) -> list[int]:
        return [each.descriptor for each in self.states]

    @property
    def hosts(self) -> list[str]:
        """The hosts of the addresses that are bound, as BIND names them."""
        addresses = [each.address for each in self.states]
        return [address.rpartition(":")[0] for address in addresses if not address.startswith("unix:")]

    def replace(self, states: list[SocketState]) -> None:
        """Hold these sockets instead: those on which the site listens from now on."""
        kept = {(each.address, each.inode) for each in states}
        for each in self.states:
            os.close(each.descriptor)
            if (each.address, each.inode) not in kept:
                unlink(each)
        self.states = states

    def close(self) -> None:
        for each in self.states:
            os.close(each.descriptor)
            unlink(each)


def unlink(state: SocketState) -> None:
    """Remove a Unix socket's file, if it is still the one that was bound."""
    if state.inode is not None:
        with contextlib.suppress(OSError):
            unlink_same(state.address.removeprefix("unix:"), state.inode)
