"""The plugin that answers health probes over HTTP, apart from the site's own requests."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from weakref import WeakSet

from ..health.checks import Checks, Outcome, Round, failure
from ..health.report import Condition, Report
from ..health.server import ProbeServer
from ..wspbus import Bus
from ..wspbus.plugin import Plugin

CHANNEL = "health"
"""The channel on which apps subscribe their checks."""

EXIT_TIMEOUT = 1
"""Seconds that the exit of the bus waits for pending responses and running checks."""

SERVING = ("ready", "saturated", "reloading")
"""The states in which requests are welcome; also if saturated, as load must not evict every site at once."""


@dataclass(frozen=True, slots=True)
class Made:
    """A report that needs no checks."""

    made: Report
    deadline: float = 0

    def report(self) -> Report:
        return self.made


class Readiness:
    """A report that waits for a round of checks."""

    def __init__(self, probes: Probes, round_: Round) -> None:
        self.deadline = round_.deadline
        self._probes = probes
        self._round = round_

    def report(self) -> Report | None:
        outcomes = self._round.outcomes()
        return None if outcomes is None else self._probes.conclude(outcomes)


class Probes(Plugin):
    """Answers ``/livez`` and ``/readyz`` in one thread of the site process, and runs checks in other threads.

    ``sockets()`` returns the listening sockets to answer on. The site closes them after this plugin's
    ``exit``; until then the plugin answers, even while the site drains. ``condition()`` returns the condition
    of the site. The thread sleeps while no client is connected. No client and no check can block it.
    """

    role = "site"

    def __init__(
        self, bus: Bus, sockets: Callable[[], list[socket.socket]], condition: Callable[[], Condition]
    ) -> None:
        super().__init__(bus)
        self._sockets = sockets
        self._condition = condition
        self._server: ProbeServer | None = None
        self._threads: WeakSet[threading.Thread] = WeakSet()
        self._checks = Checks(lambda: bus.plan(CHANNEL), self._call_in_thread, self._wake)
        self._failing: set[str] = set()
        self._is_blind = False

    # Reports

    def _answer(self, path: str) -> Made | Readiness:
        condition = self._look()
        if path == "/livez":  # good unless only a restart helps, as this process answers
            return Made(Report(condition.state != "stuck", condition))
        if condition.state not in SERVING:
            return Made(Report(False, condition))
        return Readiness(self, self._checks.begin())

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Report:
        """Return a report of the site's condition and the outcomes of its checks."""
        self._note(outcomes)
        checks = {name: outcome.reason for name, outcome in outcomes.items()}
        condition = self._look()  # again, as the site may have begun to drain
        if condition.state not in SERVING:
            return Report(False, condition, checks)
        failures = [f"{name}: {reason}" for name, reason in checks.items() if reason]
        if failures:
            condition = replace(condition, state="failed", reason="; ".join(failures))
        return Report(not failures, condition, checks)

    def _look(self) -> Condition:
        try:
            condition = self._condition()
        except Exception as error:  # a probe must get a response even then
            if not self._is_blind:
                self._is_blind = True
                self.bus.log("The condition of the site is unknown", level=40, traceback=True)
            return Condition("failed", failure(error).reason)
        self._is_blind = False
        return condition

    def _note(self, outcomes: Mapping[str, Outcome]) -> None:
        """Log which checks have begun or ceased to fail, because few clients show the text of a report."""
        failing = {name for name, outcome in outcomes.items() if outcome.reason}
        before, self._failing = self._failing, failing
        for name in sorted(failing - before):
            self.bus.log(f"The check {name} fails: {outcomes[name].detail}", level=30)
        for name in sorted(before - failing):
            self.bus.log(f"The check {name} no longer fails.")

    # Threads

    def start(self) -> None:
        if self._server is not None:  # still running since before a stop
            return
        with contextlib.ExitStack() as undone:
            listeners = [undone.enter_context(sock.dup()) for sock in self._sockets()]
            self._server = ProbeServer(listeners, self._answer, self._failed)
            undone.pop_all()
        self._call_in_thread("Probes", self._server.run)

    start.priority = 21  # type: ignore[attr-defined]  # early, so that probes see the state "starting"

    def _failed(self) -> None:
        self.bus.log("Error while answering a probe", level=40, traceback=True)

    def _wake(self) -> None:
        if (server := self._server) is not None:
            server.wake()

    def _call_in_thread(self, name: str, function: Callable[[], None]) -> None:
        # A daemon thread, because a check that hangs must not keep the process alive.
        thread = threading.Thread(target=function, name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def exit(self) -> None:
        """Answer the requests that have arrived, and log the threads that take longer than `EXIT_TIMEOUT`."""
        if self._server is None:
            return
        self._server.end(EXIT_TIMEOUT)
        if threads := self._join(EXIT_TIMEOUT):
            names = ", ".join(sorted(thread.name for thread in threads))
            self.bus.log(f"The exit does not wait any longer for: {names}", level=30)
        self._server = None

    exit.priority = 89  # type: ignore[attr-defined]  # before the sockets are closed

    def _join(self, seconds: float) -> list[threading.Thread]:
        """Wait for the plugin's threads; return those that have not ended in time."""
        deadline = time.monotonic() + seconds
        while (threads := self._running()) and (left := deadline - time.monotonic()) > 0:
            threads[0].join(left)
        return threads

    def _running(self) -> list[threading.Thread]:
        """Return the plugin's live threads, except for this one: a check may have called ``bus.exit()``."""
        here = threading.current_thread()
        return [each for each in threading.enumerate() if each in self._threads and each is not here]
