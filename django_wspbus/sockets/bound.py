"""A listening socket of a site."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, field

from ..conf.addresses import Address
from ..successor.state import SocketState
from ..system.ownership import unlink_same


@dataclass(slots=True)
class Bound:
    """A listening socket and the address of the settings to which it belongs."""

    address: Address
    socket: socket.socket
    inode: tuple[int, int] | None = None
    """Device and inode of the file of a Unix socket, if this site made it."""
    is_passed: bool = False
    """True if systemd passed it, so that it stays open when the site ends."""
    is_filtered: bool = False
    """True if the kernel drops the packets of new clients."""
    name: str = field(init=False)
    """The address as bound, with the real port where the settings say 0."""

    def __post_init__(self) -> None:
        self.name = name_of(self.socket)  # a closed socket has no name any more

    @classmethod
    def adopt(cls, state: SocketState, address: Address, backlog: int) -> Bound:
        """Take over a socket that the program before this one has bound."""
        sock = socket.socket(fileno=state.descriptor)
        sock.listen(backlog)  # the setting may have changed
        return cls(address, sock, state.inode)

    @property
    def url(self) -> str:
        """The URL for a browser on this machine; the path of a Unix socket."""
        if self.socket.family == socket.AF_UNIX:
            return self.name
        name = self.name
        if name.startswith("0.0.0.0:"):
            name = "127.0.0.1" + name.removeprefix("0.0.0.0")
        elif name.startswith("[::]:"):
            name = "[::1]" + name.removeprefix("[::]")
        return f"http://{name}/"

    @property
    def is_open(self) -> bool:
        return self.socket.fileno() != -1

    def close(self) -> None:
        self.socket.close()
        self.unlink()

    def unlink(self) -> None:
        """Remove the file of a Unix socket unless it was replaced. After a change of user it may stay."""
        if self.inode is not None:
            with contextlib.suppress(OSError):
                unlink_same(self.address.path, self.inode)


def name_of(sock: socket.socket) -> str:
    """Return the address of a socket, as BIND has it."""
    if sock.family == socket.AF_UNIX:
        path = sock.getsockname()
        return f"unix:{path if isinstance(path, str) else os.fsdecode(path)}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
