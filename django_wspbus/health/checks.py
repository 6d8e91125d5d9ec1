"""The checks of a site's apps: made all at once, within a deadline, each in a thread of its own."""

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

TIME_TO_CHECK = 0.8
"""Seconds that all checks have together: Kubernetes waits one for the answer."""

Check = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a check. ``reason``: for every client, "" if nothing fails; ``detail``: for the log.

    A check that returns a reason has chosen its words. The message of an exception is for the log alone, as
    it may hold the password of a database.
    """

    reason: str = ""
    detail: str = ""


@dataclass(eq=False, slots=True)
class Run:
    """A check under way. ``outcome``: None while it runs."""

    begun: float
    outcome: Outcome | None = None
    again: bool = False


class Round:
    """The runs that one probe waits for, one of each check, for `TIME_TO_CHECK` seconds at most."""

    def __init__(self, runs: dict[str, Run], deadline: float) -> None:
        self.deadline = deadline
        self._runs = runs

    def outcomes(self) -> dict[str, Outcome] | None:
        """Return what each check has found, by name; None if one still runs and the time is not over."""
        now = time.monotonic()
        if now < self.deadline and any(run.outcome is None for run in self._runs.values()):
            return None
        return {name: run.outcome or _hanging(now - run.begun) for name, run in self._runs.items()}


class Checks:
    """Makes all checks at once, each in a thread of its own, of which a check never has two.

    ``listeners()`` are the checks; ``ended()`` is called when one has ended. A probe that comes while
    one is being made waits for the same run. One that hangs fails until it comes back, and is made anew for
    the probes that wait for it then.
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
        """Begin the checks that are not being made; return what a probe is to wait for."""
        deadline = time.monotonic() + TIME_TO_CHECK
        with self._lock:
            runs = {name: self._join(name, check) for name, check in _named(self._listeners())}
        return Round(runs, deadline)

    def _join(self, name: str, check: Check) -> Run:
        run = self._runs.get(check)
        if run is not None:
            run.again = run.again or time.monotonic() - run.begun > TIME_TO_CHECK
            return run
        run = Run(time.monotonic())
        try:
            self._call_in_thread(f"Check {name}", partial(self._make, check, run))
        except RuntimeError as error:  # no thread to be had
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
            if apps.ready:  # on a bare bus there may be no Django that could have any
                connections.close_all()
    except BaseException as error:  # SystemExit, too, is for its thread and not for the process
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
    """Yield checks, each with a name that no other has."""
    names: Counter[str] = Counter()
    for check in checks:
        name = name_of(check)
        names[name] += 1
        yield (name if names[name] == 1 else f"{name} ({names[name]})"), check


def name_of(function: Any) -> str:
    """Return the dotted name of a function, or of the class of another callable."""
    while isinstance(function, partial):
        function = function.func
    if not hasattr(function, "__qualname__"):
        function = type(function)
    module = getattr(function, "__module__", None)  # methods of built-in types have none
    return f"{module}.{function.__qualname__}" if module else str(function.__qualname__)
