"""The requests by which a process of a site uses the engine, which only its site has a connection with."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from ..process.asking import RemoteSite
from ..process.site import SiteUnreachable
from .base import LEADER, Engine, Lease, Member, Run, Unavailable

REQUEST = "fleet.engine"
"""The request: the name of an operation, and its arguments."""

DESCRIBE = "fleet.describe_jobs"
"""The request by which a leader process describes its jobs: its PID, and the description of each."""


def _lease(values: dict[str, Any] | None) -> Lease | None:
    return None if values is None else Lease(**values)


def _held(values: dict[str, Any]) -> Lease:
    return Lease(**values)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "take": lambda engine, seen, holder: engine.take(LEADER, _lease(seen), holder),
    "renew": lambda engine, lease: engine.renew(LEADER, _held(lease)),
    "release": lambda engine, lease: engine.release(LEADER, _held(lease)),
    "time": lambda engine: engine.time(),
    "members": lambda engine: engine.members(),
    "runs": lambda engine: engine.runs(),
}
"""The operations, as the site carries them out."""

OF_RUNS: dict[str, Callable[[Engine, Run], bool]] = {
    "claim": lambda engine, run: engine.claim(run),
    "finish": lambda engine, run: engine.finish(run),
}


class Stale(Exception):
    """The engine has failed since the candidate looked at the lease."""


def operate(engine: Engine, member: str, failures: int, operation: str, *args: Any) -> Any:
    """Carry out an operation, in the site; return its result as JSON has it.

    ``member``: the identifier of the site, to whose processes the runs belong that name none. ``failures``:
    the number of failures of the engine so far; `Stale` if a candidate knows another one.
    """
    if operation == "read":
        lease = engine.read(LEADER)
        return [None if lease is None else asdict(lease), failures]
    if operation == "member":
        return member
    if operation == "take":
        seen, holder, known = args
        if known != failures:
            raise Stale("The engine has failed since the lease was read.")
        args = (seen, holder)
    if operation in OF_RUNS:
        run = Run(**args[0])
        if run.pid and not run.host:
            run = replace(run, host=socket.gethostname(), member=member)
        return OF_RUNS[operation](engine, run)
    result = OPERATIONS[operation](engine, *args)
    if isinstance(result, list):
        return [asdict(each) for each in result]
    return asdict(result) if isinstance(result, Lease) else result


class EngineOfSite:
    """The engine, from another process of the site. Each method raises `Unavailable` if there is no answer.

    ``timeout``: the seconds after which there is none, a few at most.
    """

    def __init__(self, site: RemoteSite, timeout: float) -> None:
        self._site = site
        self._timeout = timeout
        self._failures: int | None = None
        """The number of failures of the engine when this process last looked at the lease; None: unknown."""

    def _ask(self, operation: str, *args: Any, timeout: float | None = None) -> Any:
        try:
            return self._site.ask_within(
                min(timeout or self._timeout, self._timeout), REQUEST, operation, *args
            )
        except (RuntimeError, SiteUnreachable) as error:
            raise Unavailable(str(error)) from error

    def describe_jobs(self, jobs: list[dict[str, Any]]) -> None:
        """Describe the jobs of this process, for the action ``jobs``; the site answers without the engine."""
        self._site.ask(DESCRIBE, os.getpid(), jobs)

    def read(self) -> Lease | None:
        """Return the lease; `Unavailable` if the engine has failed since the last look."""
        known, self._failures = self._failures, None
        lease, failures = self._ask("read")
        self._failures = failures
        if known not in (None, failures):
            raise Unavailable("The engine has failed meanwhile, and may have lost its last writes.")
        return _lease(lease)

    def take(self, seen: Lease | None, holder: str) -> Lease | None:
        """Take the lease, unless the engine has failed since `read`."""
        known, self._failures = self._failures, None
        return _lease(self._ask("take", None if seen is None else asdict(seen), holder, known))

    def renew(self, lease: Lease, timeout: float) -> Lease | None:
        return _lease(self._ask("renew", asdict(lease), timeout=timeout))

    def release(self, lease: Lease) -> bool:
        return bool(self._ask("release", asdict(lease)))

    def member(self) -> str:
        """Return the identifier of the site in the fleet; "" if it is alone."""
        return str(self._ask("member"))

    def time(self) -> float:
        return float(self._ask("time"))

    def members(self) -> list[Member]:
        return [Member(**values) for values in self._ask("members")]

    def runs(self) -> list[Run]:
        return [Run(**values) for values in self._ask("runs")]

    def claim(self, run: Run) -> bool:
        return bool(self._ask("claim", asdict(run)))

    def finish(self, run: Run) -> bool:
        return bool(self._ask("finish", asdict(run)))
