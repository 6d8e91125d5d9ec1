"""The action that changes the number of workers of a server."""

from __future__ import annotations

from typing import Any

from ..control.calls import Action, Call, Misuse
from ..servers.child import ChildServer
from ..wspbus import Refusal
from .assembly import Assembly


def scale(site: Assembly) -> Action:
    def answer(call: Call) -> dict[str, Any]:
        """Set the number of workers of a server; return it with the number before."""
        alias, workers = call.argument("server", str), call.argument("workers", int)
        servers = {server.settings.alias: server for server in site.servers}
        if alias not in servers:
            known = ", ".join(map(repr, servers))
            raise Misuse(f"There is no server {alias!r}. The site has {known}.")
        server = servers[alias]
        if not isinstance(server, ChildServer):
            raise Refusal(f"The server {alias!r} serves in the site process, and so has no workers.")
        return {"server": alias, "before": server.scale(workers), "workers": workers}

    return answer
