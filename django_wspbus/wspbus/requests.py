"""Requests of any thread: for reloads and restarts, which the thread in `block` runs, and for exits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from .core import Core
from .failures import ChannelFailures, Refusal
from .transitions import Transitions

NAMES = {"graceful": "reload", "restart": "restart"}

Done = Callable[[Exception | None], object]
"""Called with the error of what was asked for; None: all went well."""


class Requests:
    """The requests for operations of a bus. Those that come before an operation begins share one run."""

    def __init__(self, bus: Core, transitions: Transitions) -> None:
        self._bus = bus
        self._exit = transitions.exit
        self._operations = {"graceful": transitions.graceful, "restart": transitions.restart}
        self.begin()

    def begin(self) -> None:
        """Begin, also in a forked child: the threads that made requests are not there."""
        self._asked: dict[str, deque[Done]] = {what: deque() for what in self._operations}

    def ask_exit(self) -> None:
        """Exit, in this thread or at the end of the operation that another thread runs."""
        bus, here = self._bus, threading.current_thread()
        bus.exit_under_way.is_asked = True
        bus.waiting.wake()
        if here is threading.main_thread():
            bus.turns.take(self._exit)
        elif bus.exit_under_way.thread not in (None, here.ident):
            bus.log("Bus is exiting already")
        else:
            # Without waiting, as a listener of that operation may be joining this thread.
            bus.turns.hand_over(self._exit)

    def ask(self, what: str) -> None:
        """Run an operation, or have the thread in `block` run it; return when it is over.

        Raises its error, and `Refusal` if the bus exits first.
        """
        home = self._bus.waiting.home
        if home is None or home.is_leaving:
            self._bus.turns.take(self._operations[what])
            return
        outcome: list[Exception | None] = []
        if home.thread == threading.get_ident():
            self._asked[what].append(outcome.append)
            self._serve(what)  # at the end of the operation under way, if there is one
        else:
            self.add(what, outcome.append)
            # Not until the end of an exit, as one of its listeners may be joining this thread.
            self._bus.waiting.wait(lambda: outcome or self._bus.exit_asked)
            if not outcome and not self._bus.execv:
                raise Refusal(f"The bus exits before the {NAMES[what]}.")
        if outcome and outcome[0] is not None:
            raise outcome[0]

    def add(self, what: str, done: Done) -> None:
        """Ask for an operation without waiting for it; ``done`` is called in the thread that has run it."""
        self._asked[what].append(done)
        self._bus.waiting.defer(partial(self._serve, what))

    def _serve(self, what: str) -> None:
        self._bus.turns.take(partial(self._run, what))

    def _run(self, what: str) -> None:
        """Run an operation, once for all requests that have been made up to now."""
        if self._bus.exit_asked:
            return
        asked = []
        while self._asked[what]:
            asked.append(self._asked[what].popleft())
        if not asked:  # an earlier run was for them as well
            return
        error: Exception | None = None
        try:
            self._operations[what]()
        except Exception as failure:
            error = failure
            if isinstance(failure, ChannelFailures):
                self._bus.report_uncaught(failure)
        finally:
            for done in asked:
                done(error)
            self._bus.waiting.wake()
