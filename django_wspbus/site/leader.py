"""The leader process, as its site sees it: the engine that it uses, and its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from ..children.child import Child
from ..children.children import Children
from ..conf import LEADER_ALIAS, Settings
from ..fleet.base import LEADER, Engine, Lease, Run, Unavailable
from ..fleet.engines import make_engine
from ..fleet.jobs import as_lost, sentence_of_loss
from ..fleet.leadership import pid_of
from ..fleet.local import LocalEngine
from ..fleet.requests import DESCRIBE, REQUEST, Stale, operate
from ..process.answering import Answers
from ..process.exchange import Error, Reply, Result
from ..process.record import Record
from ..process.worker_orders import Released
from ..servers.leader import LeaderServer
from ..wspbus import Bus
from .fleet import SiteFleet

RELEASED = "released"
"""The kind of a message to all members: the lease of the leader has been released."""


class LeaderDesk:
    """Answers the requests of the leader process, and knows if it leads.

    ``handed_over``: the result of `hand_over` in the program before.
    """

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        children: Children,
        answers: Answers,
        fleet: SiteFleet,
        handed_over: dict[str, Any],
    ) -> None:
        self._bus = bus
        self._children = children
        self._fleet = fleet
        engine = make_engine(settings.fleet)
        self._member = "" if settings.fleet is None else fleet.member.identity.state.id
        """The identifier of this site in the fleet; "" if it is alone, and so not listed."""
        fleet.member.is_leading = lambda: self.leads
        self._is_local = isinstance(engine, LocalEngine)
        self._lease = engine.lease
        self.server = LeaderServer(bus, settings, children)
        self.jobs: dict[str, list[dict[str, Any]]] = handed_over.get("jobs", {})
        """PID -> the jobs of a leader process."""
        self._held: tuple[Lease, float] | None = None
        """The lease, while a process of this site has it, and the time of the last renewal."""
        self._elected = 0.0
        self._seen: Lease | None = None
        self._ended: list[int] = []
        """PIDs of the leader processes that have ended, of which the engine is not informed yet."""
        fleet.member.handlers[RELEASED] = [lambda message: self._wake()]
        answers.handlers[REQUEST] = self._operate
        answers.handlers[DESCRIBE] = self._note_jobs
        children.record_readers.append(self._note_end)
        if self._is_local:
            fill = partial(restore, handed_over.get("leases", []), handed_over.get("runs", []))
            fleet.commands.submit(fill, lambda nothing, error: None)

    # Requests of the leader process

    def _operate(self, args: list[Any], reply: Callable[[Reply], None]) -> None:
        operation = str(args[0])

        def done(result: Any, error: Unavailable | None) -> None:
            if error is None and not isinstance(result, Stale):
                self._note(operation, result)
                reply(Result(result))
            else:
                reply(Error(str(error or result)))

        def run(engine: Engine) -> Any:
            try:
                return operate(engine, self._member, self._fleet.failures, *args)
            except Stale as error:
                return error

        self._fleet.commands.submit(run, done)
        if self._ended:
            self._fleet.commands.submit(self._clean_up, lambda nothing, error: None)

    def _note(self, operation: str, result: Any) -> None:
        if operation == "read":
            self._seen = Lease(**result[0]) if result[0] else None
        elif operation in ("take", "renew"):
            if operation == "take" or self._held is None:
                self._elected = time.monotonic()
            self._held = result and (Lease(**result), time.monotonic())
        elif operation == "release":
            self._held = None
            self._note_release()

    def _note_release(self) -> None:
        """Make the candidates of the fleet look at the lease at once."""
        self._wake()
        if (relay := self._fleet.member.relay) is not None:
            relay.send(None, RELEASED, [])

    def _wake(self) -> None:
        for child in self._children.all():
            if child.alias == LEADER_ALIAS:
                child.order_worker(child.pid, Released())

    def _note_jobs(self, args: list[Any], reply: Callable[[Reply], None]) -> None:
        pid, jobs = args
        self.jobs[str(pid)] = jobs
        reply(Result(None))

    def _note_end(self, child: Child, pid: int, record: Record) -> None:
        """Record that the jobs of a process that has ended are lost, and release its lease."""
        if child.alias == LEADER_ALIAS:
            if len(self.jobs) > 1:  # else there is no other description of the jobs for now
                self.jobs.pop(str(pid), None)
            self._ended.append(pid)
            self._fleet.commands.submit(self._clean_up, lambda nothing, error: None)

    def _clean_up(self, engine: Engine) -> None:
        """Do so for all that have ended. If the engine does not answer, the next request tries again."""
        ended = list(self._ended)
        for run in engine.runs():  # before another process leads, which skips the ticks of what still runs
            is_here = run.pid in ended and run.member == self._member
            if is_here and run.outcome == "running" and engine.finish(as_lost(run)):
                self._bus.log(sentence_of_loss(as_lost(run)), level=40)
        held = self._held
        if held is not None and pid_of(held[0].holder) in ended:
            engine.release(LEADER, held[0])
            self._held = None
            self._note_release()
        del self._ended[: len(ended)]

    # Its state

    @property
    def leads(self) -> bool:
        """True if a process of this site leads."""
        return self._held is not None and time.monotonic() - self._held[1] < self._lease

    def status(self) -> dict[str, Any] | None:
        """Return the state of the leader process; None if the project has no work for it."""
        child = self.server.current
        if not self.server.is_wanted and child is None:
            return None
        pid = None if child is None or child.ended else child.pid
        state = "leads" if self.leads else "candidate"
        if pid is None:
            state = "booting" if self._children.booting or not self.server.respawner.trouble else "down"
        held = self._held if self.leads else None
        lease = held[0] if held is not None else self._seen
        return {
            "pid": pid,
            "state": state,
            "since": time.monotonic() - self._elected if held is not None else None,
            "token": None if lease is None else lease.token,
            "holder": None if lease is None else lease.holder,
            "jobs": len(self.current_jobs()),
            "trouble": self.server.respawner.trouble,
        }

    @property
    def trouble(self) -> str | None:
        """The reason why this site has no leader process, although it needs one."""
        child, reason = self.server.current, self.server.respawner.trouble
        is_missing = self.server.is_wanted and (child is None or child.ended)
        return f"The leader process does not run: {reason}" if is_missing and reason else None

    def current_jobs(self) -> list[dict[str, Any]]:
        """Return the jobs of the leader process that serves, or else of the last one."""
        child = self.server.current
        found = self.jobs.get(str(child.pid)) if child is not None else None
        return found if found is not None else next(reversed(self.jobs.values()), [])

    def runs(self) -> tuple[float, list[Run]]:
        """Return the time of the engine, and the last run of each job; `Unavailable` without an answer."""
        return self._fleet.commands.call(lambda engine: (engine.time(), engine.runs()), self._lease)

    def hand_over(self) -> dict[str, Any]:
        """Return what the next program needs: without FLEET, the lease and the runs are here alone."""
        state: dict[str, Any] = {"jobs": self.jobs}
        if self._is_local:
            lease, runs = self._fleet.commands.call(lambda engine: (engine.read(LEADER), engine.runs()))
            state["leases"] = [] if lease is None else [asdict(lease)]
            state["runs"] = [asdict(run) for run in runs]
        return state


def restore(leases: list[dict[str, Any]], runs: list[dict[str, Any]], engine: Engine) -> None:
    """Fill the engine of a site that is alone. A lease that is not among them is free at once."""
    for run in runs:
        engine.claim(Run(**run))
    if isinstance(engine, LocalEngine):
        engine.set_lease(LEADER, Lease(**leases[0]) if leases else Lease("", 0, 0))
