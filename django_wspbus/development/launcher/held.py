"""The listening sockets, which the launcher holds from one child to the next."""

from __future__ import annotations

import contextlib
import os

from ...process.messages import Message
from ...successor.program import SYSTEMD_FIRST
from ...system.ownership import unlink_same


class Held:
    """``sockets``: {"holder", "address", "inode", "descriptor"} of each of them.

    ``passed``: the descriptors of those that systemd has passed, under the numbers that it gave them.
    """

    def __init__(self, sockets: list[Message]) -> None:
        self.sockets = sockets
        self.passed: list[int] = []
        if os.environ.get("LISTEN_PID") == str(os.getpid()):
            self.passed = list(range(SYSTEMD_FIRST, SYSTEMD_FIRST + int(os.environ.get("LISTEN_FDS", "0"))))
        for each in sockets:
            os.set_inheritable(each["descriptor"], False)

    @property
    def descriptors(self) -> list[int]:
        return [each["descriptor"] for each in self.sockets]

    @property
    def hosts(self) -> list[str]:
        """The hosts of the addresses that are bound, as BIND names them."""
        addresses = [each["address"] for each in self.sockets]
        return [address.rpartition(":")[0] for address in addresses if not address.startswith("unix:")]

    def replace(self, sockets: list[Message], descriptors: list[int]) -> None:
        """Hold these instead: what the site listens on from now on."""
        if len(descriptors) != len(sockets):  # there were none free: better those of before than none
            for descriptor in descriptors:
                os.close(descriptor)
            return
        kept = {(each["address"], *(each["inode"] or ())) for each in sockets}
        for each in self.sockets:
            os.close(each["descriptor"])
            if (each["address"], *(each["inode"] or ())) not in kept:
                unlink(each)
        pairs = zip(sockets, descriptors, strict=True)
        self.sockets = [{**each, "descriptor": descriptor} for each, descriptor in pairs]

    def close(self) -> None:
        for each in self.sockets:
            os.close(each["descriptor"])
            unlink(each)


def unlink(held: Message) -> None:
    """Remove a Unix socket's file, if it is still the one that was bound."""
    if held["inode"] is not None:
        path = held["address"].removeprefix("unix:")
        with contextlib.suppress(OSError):
            unlink_same(path, held["inode"])
