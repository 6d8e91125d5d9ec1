"""The fleet, in the site process: the engine, and the messages of all processes of the site."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..children.child import Child
from ..children.children import Children
from ..conf import LEADER_ALIAS, Settings
from ..fleet.base import MemberProcess
from ..fleet.member import FleetMember, Identity
from ..fleet.processes import Processes
from ..fleet.relay import Commands, RelayState
from ..fleet.version import version_of_code
from ..process.answering import Answers
from ..process.exchange import Error, Reply, Result
from ..process.fleet_of_site import ASK
from ..process.outbox import Offered
from ..process.process_bus import ProcessBus
from ..process.publication import Outcome
from ..process.record import Record
from ..process.reports import Broadcast, Ready, Replied, Report, Stopped, Unsent
from ..process.worker_orders import Order
from ..successor import start
from ..wspbus.plugin import Plugin

TIME_TO_LEAVE = 1.0
"""Seconds for the last messages of a site that exits, or restarts."""

MOST_ASKS = 200
"""Asks of other processes of the site at the same time, as each has a thread; a further one gets an error."""


class SiteFleet(Plugin):
    """The site as a member of the fleet: it passes on the messages of its processes.

    ``handed_over``: the state that the program before has handed over.
    """

    role = "site"

    def __init__(
        self,
        bus: ProcessBus,
        settings: Settings,
        children: Children,
        answers: Answers,
        handed_over: Mapping[str, Any],
    ) -> None:
        super().__init__(bus)
        self.sources: list[Processes] = [ChildProcesses(children)]
        """The processes of the site that belong to the fleet."""
        version, directory = version_of_code(settings.fleet), start.original().directory
        identity = Identity(version, directory, state=RelayState(**handed_over))
        self.member = FleetMember(bus, settings.fleet, AllProcesses(self.sources), identity)
        self.member.version = self._version
        self._process_bus = bus
        self._children = children
        self._before = bus.fleet
        self._free_asks = threading.Semaphore(MOST_ASKS)
        answers.handlers[ASK] = self._ask
        children.report_readers.append(lambda child, report: self.note(report))
        children.record_readers.append(self._note_end)

    @property
    def commands(self) -> Commands:
        """Calls of the engine; without FLEET, of one in the memory of this process."""
        return self.member.commands

    @property
    def failures(self) -> int:
        """The number of failures of the engine so far."""
        relay = self.member.relay
        return 0 if relay is None else relay.commands.connection.failures

    # Its life

    def subscribe(self) -> None:
        super().subscribe()
        self.member.take_part()

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self._process_bus.fleet = self._before

    def start(self) -> None:
        self.member.start()

    start.priority = 31  # type: ignore[attr-defined]  # once the privileges are those of the site

    def exit(self) -> None:
        """Leave the fleet, unless the next program of this process goes on."""
        if not self._children.stay:
            self.member.close(TIME_TO_LEAVE)

    def stop_receiving(self) -> None:
        if self.member.relay is not None:
            self.member.relay.messages.close(TIME_TO_LEAVE)

    def hand_over(self) -> dict[str, Any]:
        """Send the last messages; return the state with which the next program goes on."""
        if self.member.relay is None:
            return {}
        self.member.close(TIME_TO_LEAVE, leaves=False)
        return asdict(self.member.relay.state)

    # Its processes

    def note(self, report: Report) -> None:
        """Note a report of a process of the site, in the thread of the switchboard."""
        match report:
            case Broadcast(channel, args):
                self.member.broadcast(channel, args)
            case Unsent(count):
                self.member.skip(count)
            case Replied(number, pid, results, error):
                self.member.note_reply(number, pid, Outcome(results, error))
            case Ready() | Stopped():  # the list of members names it, or not
                self.member.announce()

    def note_change(self) -> None:
        """Show the other members the state of this site, and the version that serves, at once."""
        self.member.announce()

    def _version(self) -> str:
        """Return the version of the children that serve; after a reload it is not that of this process."""
        found = {child.progress.version for child in list(self._children.serving.values())}
        return ", ".join(sorted(found - {""})) or self.member.identity.version

    def _note_end(self, child: Child, pid: int, record: Record) -> None:
        self.member.note_end(pid)

    def _ask(self, args: list[Any], reply: Callable[[Reply], None]) -> None:
        """Ask the fleet for a process of the site, in a thread of its own, as that takes time."""
        if not self._free_asks.acquire(blocking=False):
            reply(Error(f"it has {MOST_ASKS} asks under way."))
            return
        thread = threading.Thread(target=self._ask_now, args=(args, reply), name="Fleet ask", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            self._free_asks.release()
            reply(Error(str(error)))

    def _ask_now(self, args: list[Any], reply: Callable[[Reply], None]) -> None:
        try:
            channel, values, timeout = args
            reply(Result([asdict(each) for each in self.member.ask(channel, values, timeout)]))
        except Exception as error:  # the process that asks gets it
            reply(Error(f"{type(error).__name__}: {error}"))
        finally:
            self._free_asks.release()


class AllProcesses:
    """The processes of all sources."""

    def __init__(self, sources: list[Processes]) -> None:
        self._sources = sources

    def offer(self, orders: Sequence[Offered]) -> None:
        for source in self._sources:
            source.offer(orders)

    def serving(self) -> list[MemberProcess]:
        return [process for source in self._sources for process in source.serving()]

    def order(self, pid: int, order: Order) -> bool:
        return any(source.order(pid, order) for source in self._sources)


class ChildProcesses:
    """The workers of the servers, the leader process, and the programs that have joined the site."""

    def __init__(self, children: Children) -> None:
        self._children = children

    def offer(self, orders: Sequence[Offered]) -> None:
        for child in self._children.every():
            child.offer(orders)

    def serving(self) -> list[MemberProcess]:
        return [
            MemberProcess(pid, ["leader" if child.alias == LEADER_ALIAS else "worker"])
            for child in self._serving()
            for pid in child.answering
        ]

    def order(self, pid: int, order: Order) -> bool:
        return any(child.order_worker(pid, order) for child in self._serving())

    def _serving(self) -> list[Child]:
        return [*self._children.serving.values(), *self._children.programs()]
