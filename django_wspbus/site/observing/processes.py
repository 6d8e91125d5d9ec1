"""The processes of a site: the site process, the masters of its children, and their workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...children.child import Child
from ...children.children import Children
from ...conf import LEADER_ALIAS
from ...process.record import Record
from ...process.slots import InFlight


@dataclass(frozen=True, slots=True)
class ObservedProcess:
    """A process of a site.

    ``role``: "site", "master", "worker" or "leader"; ``record``: None if it has none.
    """

    pid: int
    role: str
    child: Child | None = None
    record: Record | None = None

    @property
    def server(self) -> str | None:
        """The alias of its server or program."""
        return None if self.child is None else self.child.alias

    @property
    def place(self) -> dict[str, Any]:
        """The fields that name it in the results of actions."""
        return {"pid": self.pid, "role": self.role, "server": self.server}

    def in_flight(self) -> list[InFlight]:
        """Return the requests that it answers; none if it has just ended."""
        return [] if self.record is None else requests_of(self.record)

    @property
    def unrecorded(self) -> int:
        try:
            return 0 if self.record is None else int(self.record.unrecorded)
        except ValueError:  # it has just ended
            return 0

    @property
    def request_timeout(self) -> float | None:
        """Seconds without progress after which a request counts as stuck."""
        return None if self.child is None else self.child.progress.policy.request_timeout


def all_processes(children: Children) -> Iterator[ObservedProcess]:
    """Yield the site process, those of each child, its master first, and the programs that have joined.

    Any thread may call it.
    """
    yield ObservedProcess(os.getpid(), "site")
    for child in children.all():
        yield from processes_of(child)
    for program in children.programs():
        yield from workers_of(program)


def processes_of(child: Child) -> Iterator[ObservedProcess]:
    workers = set(child.workers)
    if not child.ended and child.pid not in workers:
        yield ObservedProcess(child.pid, "master", child, child.records.get(child.pid))
    yield from workers_of(child)


def workers_of(child: Child) -> Iterator[ObservedProcess]:
    role = "leader" if child.alias == LEADER_ALIAS else "worker"
    for pid in sorted(set(child.workers)):
        yield ObservedProcess(pid, role, child, child.records.get(pid))


def requests_of(record: Record) -> list[InFlight]:
    """Return the requests in flight in a record; none if its process has just ended."""
    try:
        return list(record.slots.in_flight())
    except ValueError:
        return []
