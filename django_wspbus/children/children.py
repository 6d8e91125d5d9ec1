"""The child processes of a site: those that boot, those that serve, and those that drain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..conf import LEADER_ALIAS
from ..process.messages import Link, Message
from ..process.phases import TIME_FOR_LAST_ANSWERS, TIME_FOR_LISTENERS, TIME_FOR_UNSERVED_CHILD, Phases
from ..process.record import Record
from ..process.reports import Report
from ..process.switchboard import Switchboard
from ..process.worker_orders import Order
from ..successor.state import ChildState
from ..wspbus import EX_SOFTWARE, Bus, Refusal
from ..wspbus.plugin import Plugin
from .child import Child
from .handover import adopt, state_of
from .lost import lost_requests
from .retiring.retirement import Retirement
from .spawn import MOST_WORKERS, ChildStart, spawn_server
from .titles import capitalized, title_of

if TYPE_CHECKING:
    from ..conf import Settings


class Children(Plugin):
    """Boots children, releases them to serve, and ends them.

    ``answer(link, message)`` handles their requests to the site.
    ``survive_restarts``: whether they keep serving while this process executes its next program.
    ``watch_files``: whether their workers ask the site to restart when a file changes.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        site: Settings,
        switchboard: Switchboard,
        answer: Callable[[Link, Message], None],
        *,
        survive_restarts: bool = True,
        watch_files: bool = False,
    ) -> None:
        super().__init__(bus)
        self.site = site
        self.switchboard = switchboard
        self.answer = answer
        self.survive_restarts = survive_restarts
        self.watch_files = watch_files
        self.serving: dict[str, Child] = {}
        self.booting: list[Child] = []
        self.draining: list[Child] = []
        self.failures: list[str] = []
        """Failures of children that have ended already, to be reported at the exit."""
        self.retirements: dict[Child, Retirement] = {}
        self.scaled: dict[str, int] = {}
        """alias -> the number of workers, where it is not that of the settings."""
        self.swapping = False
        """True while all children are about to be replaced, so that none is started again meanwhile."""
        self.others: list[int] = []
        """PIDs of other processes that the site has started."""
        self.programs: Callable[[], Sequence[Child]] = tuple
        """Returns the programs of PROCESSES that run; their processes may have joined the site."""
        self.observers: list[Callable[[], None]] = [self._close_ended]
        """Functions that are called in the main thread when something has changed in a child."""
        self.record_readers: list[Callable[[Child, int, Record], None]] = [self._log_lost]
        """Functions of the child, the PID and the record of each process that has ended."""
        self.report_readers: list[Callable[[Child, Report], None]] = []
        """Functions of the child and each report of its processes, in the thread of the switchboard."""
        self._awaited: list[Child] = []

    def all(self) -> list[Child]:
        return [*self.booting, *self.serving.values(), *self.draining]

    def every(self) -> list[Child]:
        """Return all, and the programs of PROCESSES."""
        return [*self.all(), *self.programs()]

    def pids(self) -> list[int]:
        return [*self.others, *(child.pid for child in self.every())]

    def boot(self, alias: str, run: str, descriptors: Sequence[int], patch: str | None = None) -> Child:
        """Start a child of a server, which does not serve yet; a `Refusal` if there is no room."""
        output = self.site.daemonize
        stdout, stderr = (None, None) if output is None else (output.stdout, output.stderr)
        start = ChildStart(
            alias,
            run,
            patch,
            workers=self.scaled.get(alias),
            watches_files=self.watch_files,
            stdout=_absolute(stdout),
            stderr=_absolute(stderr),
        )
        try:
            process, pair, refusal = spawn_server(start, descriptors)
        except OSError as error:  # there is no descriptor, process or memory left
            raise Refusal(f"no process for {title_of(alias)} could be started: {error.strerror}.") from None
        child = Child(
            *(alias, process, pair, self.switchboard, self.answer),
            changed=lambda: self._note_change_of(child),
            refusal=refusal,
            ended=self.note_end,
            reported=self.note_report,
        )
        child.wanted = start.workers
        self._watch(child)
        self.booting.append(child)
        child.listen()
        return child

    def switch(self, children: Iterable[Child]) -> None:
        """Release all of these to serve, and dismiss the children that they replace."""
        children = list(children)
        before = [self.serving.get(child.alias) for child in children]
        earlier = list(self.draining)
        for child in children:
            child.serve()
            self.booting.remove(child)
            self.serving[child.alias] = child
        replaced = [old for old in before if old is not None]  # none if it had ended, and drains already
        for old in replaced:
            self.dismiss(old, is_replaced=True)
        aliases = {old.alias for old in replaced} - {LEADER_ALIAS}  # it goes on only while jobs run
        for child in earlier:  # at most one generation drains
            if child.alias in aliases and child.is_serving:
                self._shorten(child)

    def dismiss(self, child: Child, *, is_replaced: bool = False) -> None:
        """Tell a child to answer the requests in flight and exit; it is killed when its time is up.

        ``is_replaced``: it has GRACEFUL_TIMEOUT for its requests, as others serve. A child that drains
        already can only get less time.
        """
        phases = self._phases(is_replaced=is_replaced)
        if not child.is_serving:
            phases = phases.shortened(TIME_FOR_UNSERVED_CHILD / 2, TIME_FOR_UNSERVED_CHILD / 2)
        if child in self.booting:
            self.booting.remove(child)
        if self.serving.get(child.alias) is child:
            del self.serving[child.alias]
        if child not in self.draining:
            self.draining.append(child)
        self._terminate(child, phases)

    def _phases(self, *, is_replaced: bool) -> Phases:
        if not is_replaced or self.bus.deadline is not None:
            return Phases.of(self.bus, self.site)
        phases, limit = Phases.of_replaced(self.site), self.site.time_for_requests
        return phases if limit is None else phases.shortened(limit, TIME_FOR_LISTENERS)

    def _shorten(self, child: Child) -> None:
        """End the generation before, as a further reload has replaced the one that replaced it."""
        phases = Phases.of_replaced(self.site).shortened(TIME_FOR_LAST_ANSWERS, TIME_FOR_LISTENERS)
        self._terminate(child, phases, ", as a further reload ended this generation")

    def _terminate(self, child: Child, phases: Phases, why: str = "") -> None:
        child.terminate(phases, why)
        self.switchboard.call_later(max(phases.children - time.monotonic(), 0), self._note_change)

    def end(self, children: Iterable[Child]) -> list[str]:
        """End children that never served, and wait until they have ended; return the failures meanwhile."""
        ended = list(children)
        for child in ended:
            self.dismiss(child)
        self._awaited += ended  # their failures are for the caller, and not only for the log
        try:
            self._await_end(ended)
        finally:
            self._awaited = [each for each in self._awaited if each not in ended]
        return [failed for child in ended if child in self.draining for failed in self._close(child)]

    def _await_end(self, children: Iterable[Child]) -> None:
        """Wait until children that drain have ended, each until its deadline."""
        ended = list(children)
        latest = max((child.deadline or 0 for child in ended), default=0)
        self.bus.wait_for(
            lambda: all(each.is_gone or each.is_overdue for each in ended),
            max(latest - time.monotonic(), 0),
            despite_exit=True,
        )

    def scale(self, alias: str, workers: int) -> int:
        """Set the number of workers of a server; return the number before. A `Refusal` says why not.

        It holds over reloads and restarts, until the site exits. Any thread may call this.
        """
        if self.bus.exit_asked or self.bus.execv:  # the state may have been handed over
            raise Refusal("The site exits.")
        if not 0 < workers <= MOST_WORKERS:
            raise Refusal(f"A server has from 1 to {MOST_WORKERS} workers, and not {workers}.")
        current, before = self.serving.get(alias), self.wanted(alias)
        if current is None or before is None:
            raise Refusal(f"The server {alias!r} has no process at present.")
        self.scaled[alias] = workers
        for child in [*self.booting, current]:
            if child.alias == alias and child in self.retirements:
                child.wanted = workers
                self.retirements[child].look()
        return before

    def wanted(self, alias: str) -> int | None:
        """Return the number of workers that a server is to have; None if it has no process at present."""
        current = self.serving.get(alias)
        if current is None or current.ended:
            return None
        return current.progress.expected if current.wanted is None else current.wanted

    def order_workers(self, order: Order) -> int:
        """Give an order to the workers that serve and listen; return how many there are."""
        return sum(child.order_workers(order) for child in self.serving.values())

    def _watch(self, child: Child) -> None:
        self.retirements[child] = Retirement(child, self.switchboard, self.site, self.bus.log)

    def _note_change_of(self, child: Child) -> None:
        if child in self.retirements:
            self.retirements[child].look()
        self._note_change()

    def _note_change(self) -> None:
        self.bus.wake()
        for observer in self.observers:
            self.bus.defer(observer)

    def note_end(self, child: Child, pid: int, record: Record) -> None:
        """Hand on the record of a process that has ended, before it is closed."""
        for read in self.record_readers:
            read(child, pid, record)

    def note_report(self, child: Child, report: Report) -> None:
        """Hand on a report of a process."""
        for read in self.report_readers:
            read(child, report)

    def _log_lost(self, child: Child, pid: int, record: Record) -> None:
        """Log the requests that ended with a worker, unless the log has them already."""
        has_them = pid in child.progress.stopped or pid in child.progress.hurried
        if not has_them and (lost := lost_requests(record)):
            worker = f"Worker {pid} of the server {child.alias!r}"
            self.bus.log(f"{worker} ended unexpectedly; requests lost: {lost}.", level=40)

    def _close_ended(self) -> None:
        """Close the children that have ended, or whose deadline has passed."""
        if self.bus.deadline is not None:  # an exit waits for all of them together: see stop()
            return
        for child in [each for each in self.draining if each not in self._awaited]:
            if child.is_overdue or child.is_gone:
                for failed in self._close(child):
                    self.bus.log(failed, level=40)

    def _close(self, child: Child) -> list[str]:
        """Kill the processes that are left of a child; return the failures of its exit."""
        failed = []
        if not child.is_gone and child.is_serving:
            failed.append(child.remains())
        child.close()
        self.draining.remove(child)
        self.retirements.pop(child, None)
        if self.site.time_for_requests is None:
            failed += child.unanswered()
        title = capitalized(title_of(child.alias))
        return [f"{title}: {each}" for each in (*failed, *child.progress.failed_stops)]

    def stop(self) -> None:
        """Tell all to exit, and kill those that are left when time is up; over a restart they may stay."""
        if not self.stay and (failed := self.end_all()):
            raise Refusal("\n".join(failed), status=EX_SOFTWARE)

    stop.priority = 25  # type: ignore[attr-defined]

    def end_all(self) -> list[str]:
        """Tell all to exit within the time for it; return the failures of their exits."""
        for child in self.all():
            self.dismiss(child)
        self._await_end(self.draining)
        before, self.failures = self.failures, []
        return before + [failed for child in list(self.draining) for failed in self._close(child)]

    def abort(self) -> None:
        """Kill all of them, from a signal handler or a watchdog."""
        for child in self.all():
            child.kill()

    @property
    def stay(self) -> bool:
        """True if they keep serving while this process executes its next program."""
        return self.bus.execv and self.survive_restarts

    # Over a restart of the site

    def hand_over(self, unanswered: Callable[[Link], list[Message]]) -> list[ChildState]:
        """Return the states from which the next program can `adopt` them; the switchboard must be paused."""
        return [state_of(child, unanswered) for child in [*self.serving.values(), *self.draining]]

    def adopt(self, states: Iterable[ChildState], aliases: Iterable[str]) -> None:
        """Go on with the children of the program before; end those whose servers are no more."""
        aliases = set(aliases)
        for state in states:
            child = adopt(
                *(state, self.switchboard, self.answer),
                *(self._note_change_of, self.note_end, self.note_report),
            )
            self._watch(child)
            if state.time_left is not None:
                self.draining.append(child)
                self.switchboard.call_later(state.time_left, self._note_change)
            else:
                self.serving[child.alias] = child
                if child.alias not in aliases:
                    self.dismiss(child, is_replaced=True)
                elif child.wanted is not None:
                    self.scaled[child.alias] = child.wanted
            child.listen()
            self.retirements[child].look()


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
