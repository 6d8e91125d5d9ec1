"""The action ``requests``: every request in flight."""

from __future__ import annotations

import os
import time
from typing import Any

from ...control.calls import Action, Call
from ...process.slots import InFlight
from ..assembly import Assembly
from .processes import all_processes


def requests(site: Assembly) -> Action:
    def answer(call: Call) -> dict[str, Any]:
        now, found, unrecorded = time.monotonic(), [], 0
        for each in all_processes(site.children):
            unrecorded += each.unrecorded
            place = {"server": each.server, "pid": each.pid}
            found += [{**place, **described(one, now, each.request_timeout)} for one in each.in_flight()]
        for server in site.servers:
            place = {"server": server.settings.alias, "pid": os.getpid()}
            found += [{**place, **described(each, now, None)} for each in server.in_flight()]
        found.sort(key=lambda request: -request["age"])
        return {"requests": found, "unrecorded": unrecorded}

    return answer


def described(request: InFlight, now: float, timeout: float | None) -> dict[str, Any]:
    """Return a request as the client sees it; ``timeout``: the REQUEST_TIMEOUT of its server."""
    method, _, path = request.name.partition(" ")
    return {
        "thread": request.thread,
        "method": method,
        "path": path,
        "age": max(now - request.started, 0.0),
        "idle": max(now - request.progressed, 0.0),
        "stuck": is_stuck(request, now, timeout),
    }


def is_stuck(request: InFlight, now: float, timeout: float | None) -> bool:
    """Return whether a request has made no progress for REQUEST_TIMEOUT seconds."""
    return timeout is not None and now - request.progressed >= timeout
