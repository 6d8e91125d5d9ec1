"""The action ``status``: well or not, and why, with every process of every server, and every program."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import django

from ... import __version__, conf
from ...control.calls import Action, Call
from ...control.identity import introduction
from ...servers.base import Server
from ...servers.child import ChildServer
from ...sockets.queue import queue_length
from ...successor import start
from ...system.memory import private_memory
from ..assembly import Assembly
from .fleet import described_fleet
from .memories import Memories
from .processes import ObservedProcess, processes_of
from .programs import described_programs, troubles_of
from .states import described

WELL = ("ready", "reloading")
"""The conditions in which a site is well, if no process of it is stopped or stuck."""

NOT_WELL = {"stopped": "is stopped (SIGSTOP)", "stuck": "has a stuck request"}
"""The states of processes in which a site is not well, in words."""


def status(site: Assembly) -> Action:
    memories = Memories()

    def answer(call: Call) -> dict[str, Any]:
        of_fleet = call.argument("fleet", bool, default=False)
        brief = site.condition.status()
        processes = [process for child in site.children.all() for process in processes_of(child)]
        sizes = memories.measure([process.pid for process in processes])
        servers = {
            server.settings.alias: {
                **brief["servers"][server.settings.alias],
                **_server(site, server, processes, sizes),
            }
            for server in site.servers
        }
        programs, leader = described_programs(site.programs), _leader(site, processes, sizes)
        trouble = "; ".join([*_troubles(servers), *_troubles_of_leader(leader), *troubles_of(programs)])
        return {
            **introduction(conf.settings_module() or "", start.original().directory),
            **brief,
            "well": brief["condition"] in WELL and not trouble,
            "reason": "; ".join(filter(None, [brief["reason"], trouble])),
            "since": site.condition.seconds_since_change(brief["condition"]),
            "uptime": site.condition.uptime,
            "versions": {
                "django-wspbus": __version__,
                "Django": django.get_version(),
                "Python": platform.python_version(),
            },
            "servers": servers,
            "processes": programs,
            "fleet": described_fleet(site) if of_fleet else site.fleet.member.status(),
            "leader": leader,
            "last_operation": _last_operation(site),
        }

    return answer


def _server(
    site: Assembly, server: Server, processes: Iterable[ObservedProcess], sizes: Mapping[int, int | None]
) -> dict[str, Any]:
    bound = server.bound()
    lengths = [queue_length(each.socket) for each in bound if each.is_open]
    known = [each for each in lengths if each is not None]
    found = {
        "urls": [each.url for each in bound],
        "title": server.title,
        "queue": sum(known) if known else None,
    }
    if isinstance(server, ChildServer):
        own = [each for each in processes if each.child and each.child.alias == server.alias]
        return {**found, **_children(server, own, sizes)}
    busy = len(server.in_flight())
    process = {
        "pid": os.getpid(),
        "role": "site",
        "state": "serving" if server.failure is None else "booting",
        "age": site.condition.uptime,
        "threads": None,
        "busy": busy,
        "answered": None,
        "memory": private_memory(os.getpid()),
        "reason": None,
    }
    return {**found, "wanted": None, "threads": None, "busy": busy, "processes": [process]}


def _children(
    server: ChildServer, processes: Sequence[ObservedProcess], sizes: Mapping[int, int | None]
) -> dict[str, Any]:
    rows = [described(process, sizes[process.pid]) for process in processes]
    serving = [
        row
        for process, row in zip(processes, rows, strict=True)
        if process.child is server.current and row["busy"] is not None and row["state"] != "standby"
    ]
    current = server.current
    wanted = None if current is None else (current.wanted or current.progress.expected)
    return {
        "wanted": wanted,
        "threads": sum(threads) if (threads := _known(row["threads"] for row in serving)) else None,
        "busy": sum(row["busy"] for row in serving) if serving else None,
        "processes": rows,
    }


def _leader(
    site: Assembly, processes: Iterable[ObservedProcess], sizes: Mapping[int, int | None]
) -> dict[str, Any] | None:
    """Return the state of the leader process, and the processes of its child; None if none is needed."""
    state = site.leader.status()
    if state is None:
        return None
    own = [each for each in processes if each.child and each.child.alias == site.leader.server.alias]
    return {**state, "processes": [described(process, sizes[process.pid]) for process in own]}


def _known(threads: Iterable[int | None]) -> list[int]:
    """Return the numbers; none if one of them is not known, as for a worker with greenlets."""
    found = list(threads)
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else []


def _troubles(servers: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    for alias, server in servers.items():
        for process in server["processes"]:
            if (words := NOT_WELL.get(process["state"])) is not None:
                yield f"{process['role']} {process['pid']} of the server {alias!r} {words}"


def _troubles_of_leader(leader: Mapping[str, Any] | None) -> Iterable[str]:
    for process in (leader or {}).get("processes", ()):
        if (words := NOT_WELL.get(process["state"])) is not None:
            yield f"the leader process {process['pid']} {words}"


def _last_operation(site: Assembly) -> dict[str, Any] | None:
    last = site.swap.last
    if last is None:
        return None
    return {
        "operation": last.operation,
        "succeeded": last.error is None,
        "ago": max(time.monotonic() - last.ended, 0.0),
        "seconds": last.seconds,
        "error": last.error,
    }
