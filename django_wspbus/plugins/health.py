"""The probes of a site: a little HTTP server, off the path of its requests, that tells how the site is."""

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
"""On which apps subscribe their checks."""

TIME_TO_END = 1
"""Seconds that the exit of the bus waits for answers and checks under way."""

SERVING = ("ready", "reloading")


@dataclass(frozen=True, slots=True)
class Made:
    """A report that is there at once."""

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
    """Answers ``/livez`` and ``/readyz`` from a thread of the site process, and makes checks in others.

    ``sockets()``: those to answer on, bound and listening; the site closes them, after this plugin's
    ``exit``. Until then it goes on answering, also while the site drains. The thread sleeps while no
    client is connected, and waits neither for a client nor for a check.
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

    # What it tells

    def _answer(self, path: str) -> Made | Readiness:
        condition = self._look()
        if path == "/livez":  # this process answers, whatever its state
            return Made(Report(True, condition))
        if condition.state not in SERVING:
            return Made(Report(False, condition))
        return Readiness(self, self._checks.begin())

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Report:
        """Report whether the site serves, and the checks of its apps find nothing wrong."""
        self._note(outcomes)
        checks = {name: outcome.reason for name, outcome in outcomes.items()}
        condition = self._look()  # again, as it may drain by now
        if condition.state not in SERVING:
            return Report(False, condition, checks)
        failures = [f"{name}: {reason}" for name, reason in checks.items() if reason]
        if failures:
            condition = replace(condition, state="failed", reason="; ".join(failures))
        return Report(not failures, condition, checks)

    def _look(self) -> Condition:
        try:
            condition = self._condition()
        except Exception as error:  # a probe gets an answer all the same
            if not self._is_blind:
                self._is_blind = True
                self.bus.log("The condition of the site cannot be told", level=40, traceback=True)
            return Condition("failed", failure(error).reason)
        self._is_blind = False
        return condition

    def _note(self, outcomes: Mapping[str, Outcome]) -> None:
        """Log which checks have begun to fail, and which no longer do: few clients of probes show it."""
        failing = {name for name, outcome in outcomes.items() if outcome.reason}
        before, self._failing = self._failing, failing
        for name in sorted(failing - before):
            self.bus.log(f"The check {name} fails: {outcomes[name].detail}", level=30)
        for name in sorted(before - failing):
            self.bus.log(f"The check {name} no longer fails.")

    # Its threads

    def start(self) -> None:
        if self._server is not None:  # it outlives a stop
            return
        with contextlib.ExitStack() as undone:
            listeners = [undone.enter_context(sock.dup()) for sock in self._sockets()]
            self._server = ProbeServer(listeners, self._answer, self._failed)
            undone.pop_all()
        self._call_in_thread("Probes", self._server.run)

    start.priority = 21  # type: ignore[attr-defined]  # so that "starting" is seen

    def _failed(self) -> None:
        self.bus.log("A probe was not answered", level=40, traceback=True)

    def _wake(self) -> None:
        if (server := self._server) is not None:
            server.wake()

    def _call_in_thread(self, name: str, function: Callable[[], None]) -> None:
        # A daemon, as a check that hangs must not keep the process alive.
        thread = threading.Thread(target=function, name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def exit(self) -> None:
        """Answer the clients that have asked; name and leave behind what takes too long, or hangs."""
        if self._server is None:
            return
        self._server.end(TIME_TO_END)
        if threads := self._join(TIME_TO_END):
            names = ", ".join(sorted(thread.name for thread in threads))
            self.bus.log(f"Not waited for any longer: {names}", level=30)
        self._server = None

    exit.priority = 89  # type: ignore[attr-defined]  # before the sockets are closed

    def _join(self, seconds: float) -> list[threading.Thread]:
        """Wait for our threads; return those that have not ended by then."""
        deadline = time.monotonic() + seconds
        while (threads := self._running()) and (left := deadline - time.monotonic()) > 0:
            threads[0].join(left)
        return threads

    def _running(self) -> list[threading.Thread]:
        """Return our threads, but for this one: a check may have told the bus to exit."""
        here = threading.current_thread()
        return [each for each in threading.enumerate() if each in self._threads and each is not here]
