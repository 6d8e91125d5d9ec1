"""One worker more or fewer, by a signal."""

from __future__ import annotations

from collections.abc import Sequence

from ..servers.base import Server
from ..servers.child import ChildServer
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin


class Scaling(Plugin):
    """Changes the number of workers of every server that has any, on the channels ``more`` and ``fewer``."""

    role = "site"

    def __init__(self, bus: Bus, servers: Sequence[Server]) -> None:
        super().__init__(bus)
        self._servers = [
            each for each in servers if isinstance(each, ChildServer) and type(each).replaces_workers
        ]

    def more(self) -> None:
        self._change(1)

    def fewer(self) -> None:
        self._change(-1)

    def _change(self, difference: int) -> None:
        if not self._servers:
            self.bus.log("No server of this site has workers whose number can change.", 30)
        for server in self._servers:
            before = server.children.wanted(server.alias)
            if before is None:
                self.bus.log(f"The server {server.alias!r} has no process at present.", 30)
                continue
            try:
                server.scale(before + difference)
            except Refusal as refusal:
                self.bus.log(str(refusal), 30)
            else:
                self.bus.log(f"The server {server.alias!r} is to have {before + difference} workers.")
