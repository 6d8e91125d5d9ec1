"""The probes of a site: a little HTTP server, off the path of its requests, that tells how the site is."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakSet

from ..link import Switchboard
from ..plugin import Plugin
from ..wspbus import Bus
from .health_checks import Checks, told
from .health_http import ProbeHandler

CHANNEL = "health"
"""On which apps subscribe their checks."""

LAST_CHANCE = 0.2
"""Seconds in which a client that has connected may still send its request when the probes end."""

TIME_TO_END = 1
"""Seconds that the exit of the bus waits for answers and checks under way."""

MOST_CONNECTIONS = 32
"""At once; further ones wait in the queue of the socket."""

SERVING = ("ready", "reloading")


@dataclass(frozen=True, slots=True)
class Condition:
    """How a site is.

    ``state``: "starting", "ready", "reloading", "draining" or "failed". ``reason``: for people.
    ``details``: what the JSON has besides, in values that it knows.
    """

    state: str
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a probe. ``checks``: name -> what is wrong, "" if nothing is."""

    is_good: bool
    condition: Condition
    checks: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        state, reason = self.condition.state, self.condition.reason
        return " ".join(f"{state}: {reason}".split()) if reason else state

    def json(self) -> str:
        told = {
            "status": "ok" if self.is_good else "unavailable",
            "state": self.condition.state,
            "reason": self.condition.reason,
            "checks": {name: reason or "ok" for name, reason in self.checks.items()},
        }
        return json.dumps({**told, **self.condition.details}, default=str)


class Probes(Plugin):
    """Answers ``/livez`` and ``/readyz`` from threads of the site process, one for each connection.

    ``sockets()``: those to answer on, bound and listening; the site closes them, after this plugin's
    ``exit``. Until then it goes on answering, also while the site drains. The ``switchboard`` tells
    of connections, so that there is no thread, and nothing wakes, while nobody asks.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        sockets: Callable[[], list[socket.socket]],
        switchboard: Switchboard,
        condition: Callable[[], Condition],
    ) -> None:
        super().__init__(bus)
        self._sockets = sockets
        self._switchboard = switchboard
        self._condition = condition
        self._lock = threading.RLock()
        self._listening: list[socket.socket] = []
        self._connections: set[socket.socket] = set()
        self._threads: WeakSet[threading.Thread] = WeakSet()
        self._checks = Checks(lambda: bus.plan(CHANNEL), self._call_in_thread)
        self._failing: set[str] = set()
        self._is_blind = False

    # What it tells

    def _report_life(self) -> Report:
        """Report that this process answers, whatever its state."""
        return Report(True, self._look())

    def _report_readiness(self) -> Report:
        """Report whether the site serves, and the checks of its apps find nothing wrong."""
        condition = self._look()
        if condition.state not in SERVING:
            return Report(False, condition)
        checks = self._checks.run()
        self._note(checks)
        condition = self._look()  # again, as it may drain by now
        if condition.state not in SERVING:
            return Report(False, condition, checks)
        failures = [f"{name}: {reason}" for name, reason in checks.items() if reason]
        if failures:
            condition = replace(condition, state="failed", reason="; ".join(failures))
            return Report(False, condition, checks)
        return Report(True, condition, checks)

    def _look(self) -> Condition:
        try:
            condition = self._condition()
        except Exception as error:  # whatever it is, a probe wants an answer
            with self._lock:
                was_blind, self._is_blind = self._is_blind, True
            if not was_blind:
                self.bus.log("The condition of the site cannot be told", level=40, traceback=True)
            return Condition("failed", told(error))
        self._is_blind = False
        return condition

    def _note(self, checks: Mapping[str, str]) -> None:
        """Log which checks have begun to fail, and which no longer do: few who probe show the answer."""
        failing = {name for name, reason in checks.items() if reason}
        with self._lock:
            before, self._failing = self._failing, failing
        for name in sorted(failing - before):
            self.bus.log(f"The check {name} fails: {checks[name]}", level=30)
        for name in sorted(before - failing):
            self.bus.log(f"The check {name} no longer fails.")

    # How it answers

    def start(self) -> None:
        with self._lock:
            if self._listening:  # it outlives a stop
                return
            for sock in self._sockets():
                listener = sock.dup()
                listener.setblocking(False)  # a client may be gone before it is accepted
                self._listening.append(listener)
            self._watch()

    start.priority = 21  # type: ignore[attr-defined]  # so that "starting" is seen

    def _watch(self) -> None:
        for listener in self._listening:
            self._switchboard.watch(listener.fileno(), partial(self._accept, listener))

    def _forget(self) -> None:
        for listener in self._listening:
            self._switchboard.forget(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection and hand it to a thread of its own."""
        try:
            with self._lock:
                connection, _ = listener.accept()
                self._connections.add(connection)
                if len(self._connections) == MOST_CONNECTIONS:
                    self._forget()
                try:
                    self._call_in_thread("Probe", partial(self._answer, connection))
                except RuntimeError:  # no thread to be had
                    self._close(connection)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.1)  # until a descriptor is free; it is readable all the while

    def _answer(self, connection: socket.socket) -> None:
        try:
            ProbeHandler(connection, {"/livez": self._report_life, "/readyz": self._report_readiness})
        except OSError:
            pass  # the client is gone, or has taken too long
        except Exception:
            self.bus.log("A probe was not answered", level=40, traceback=True)
        finally:
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        with self._lock:
            connection.close()
            self._connections.discard(connection)
            if len(self._connections) == MOST_CONNECTIONS - 1:
                self._watch()

    def _call_in_thread(self, name: str, function: Callable[[], None]) -> None:
        # A daemon, as a check that hangs must not keep the process alive.
        thread = threading.Thread(target=function, name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def exit(self) -> None:
        """Answer who has asked; what takes too long, or hangs, is named and left behind."""
        with self._lock:
            self._forget()
            for listener in self._listening:
                listener.close()
            self._listening = []
        self._join(LAST_CHANCE)
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client is gone
                    connection.shutdown(socket.SHUT_RD)  # no request is to come any more
        if threads := self._join(TIME_TO_END):
            names = ", ".join(sorted(thread.name for thread in threads))
            self.bus.log(f"Not waited for any longer: {names}", level=30)

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
