"""The health checks of a site's apps: all run at the same time, each in its own thread, within a deadline."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps
from django.db import connections

CHECK_TIMEOUT = 0.8
"""Seconds for all checks together, as Kubernetes waits one second for the answer."""

Check = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a check. ``reason``: for every client, "" if the check passes; ``detail``: for the log.

    A reason that a check returns is shown. The message of an exception goes only to the log, because it may
    hold the password of a database.
    """

    reason: str = ""
    detail: str = ""


@dataclass(eq=False, slots=True)
class Run:
    """A running check. ``outcome``: None until it ends; ``again``: run it once more after that."""

    begun: float
    outcome: Outcome | None = None
    again: bool = False


class Round:
    """The runs that one probe waits for: one of each check, for at most `CHECK_TIMEOUT` seconds."""

    def __init__(self, runs: dict[str, Run], deadline: float) -> None:
        self.deadline = deadline
        self._runs = runs

    def outcomes(self) -> dict[str, Outcome] | None:
        """Return the outcomes by name of check; None while a check runs and the deadline has not passed."""
        now = time.monotonic()
        if now < self.deadline and any(run.outcome is None for run in self._runs.values()):
            return None
        return {name: run.outcome or _hanging(now - run.begun) for name, run in self._runs.items()}


class Checks:
    """Runs all checks at the same time, each in its own thread. A check never runs in two threads at once.

    ``listeners()`` returns the checks. ``ended()`` is called when a check has ended.

    A probe that arrives while a check runs waits for the same run. A check that hangs counts as failed until
    it ends. If probes wait for it at that moment, it runs once more for them.
    """

    def __init__(
        self,
        listeners: Callable[[], Iterable[Check]],
        call_in_thread: Callable[[str, Callable[[], None]], None],
        ended: Callable[[], None],
    ) -> None:
        self._listeners = listeners
        self._call_in_thread = call_in_thread
        self._ended = ended
        self._lock = threading.Lock()
        self._runs: dict[Check, Run] = {}

    def begin(self) -> Round:
        """Start the checks that are not running; return the round that a probe waits for."""
        deadline = time.monotonic() + CHECK_TIMEOUT
        with self._lock:
            runs = {name: self._join(name, check) for name, check in _named(self._listeners())}
        return Round(runs, deadline)

    def _join(self, name: str, check: Check) -> Run:
        run = self._runs.get(check)
        if run is not None:
            run.again = run.again or time.monotonic() - run.begun > CHECK_TIMEOUT
            return run
        run = Run(time.monotonic())
        try:
            self._call_in_thread(f"Check {name}", partial(self._make, check, run))
        except RuntimeError as error:  # the system refuses another thread
            run.outcome = failure(error)
        else:
            self._runs[check] = run
        return run

    def _make(self, check: Check, run: Run) -> None:
        while True:
            outcome = _outcome(check)
            with self._lock:
                if not run.again:
                    run.outcome = outcome
                    del self._runs[check]
                    break
                run.again, run.begun = False, time.monotonic()
        self._ended()


def _outcome(check: Check) -> Outcome:
    try:
        try:
            result = check()
        finally:
            if apps.ready:  # without Django there are no connections
                connections.close_all()
    except BaseException as error:  # in a thread, SystemExit must not end the process either
        return failure(error)
    reason = "returned False" if result is False else result if isinstance(result, str) else ""
    return Outcome(reason, reason)


def _hanging(seconds: float) -> Outcome:
    reason = f"hangs: no answer for {seconds:.1f} s"
    return Outcome(reason, reason)


def failure(error: BaseException) -> Outcome:
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    return Outcome(name, f"{name}: {text}" if text else name)


def _named(checks: Iterable[Check]) -> Iterator[tuple[str, Check]]:
    """Yield the checks with unique names."""
    names: Counter[str] = Counter()
    for check in checks:
        name = name_of(check)
        names[name] += 1
        yield (name if names[name] == 1 else f"{name} ({names[name]})"), check


def name_of(function: Any) -> str:
    """Return the dotted name of a function, or of the class of any other callable."""
    while isinstance(function, partial):
        function = function.func
    if not hasattr(function, "__qualname__"):
        function = type(function)
    module = getattr(function, "__module__", None)  # None for methods of built-in types
    return f"{module}.{function.__qualname__}" if module else str(function.__qualname__)
