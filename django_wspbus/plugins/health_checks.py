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


@dataclass(eq=False, slots=True)
class Run:
    """A check under way. ``reason``: what is wrong, "" if nothing is, None as long as it runs."""

    begun: float
    reason: str | None = None
    again: bool = False


class Checks:
    """Makes all checks at once, each in a thread of its own, of which a check never has two.

    ``listeners()`` are the checks. Who asks while one is being made waits for the same run. One
    that hangs fails until it comes back, and is made anew for those who wait for it then.
    """

    def __init__(
        self,
        listeners: Callable[[], Iterable[Check]],
        call_in_thread: Callable[[str, Callable[[], None]], None],
    ) -> None:
        self._listeners = listeners
        self._call_in_thread = call_in_thread
        self._changed = threading.Condition()
        self._runs: dict[Check, Run] = {}

    def run(self) -> dict[str, str]:
        """Return what is wrong with each, by name, "" if nothing is, within `TIME_TO_CHECK` seconds."""
        deadline = time.monotonic() + TIME_TO_CHECK
        with self._changed:
            runs = {name: self._join(name, check) for name, check in _named(self._listeners())}
            self._changed.wait_for(
                lambda: all(run.reason is not None for run in runs.values()),
                max(deadline - time.monotonic(), 0),
            )
            return {name: _outcome(run) for name, run in runs.items()}

    def _join(self, name: str, check: Check) -> Run:
        run = self._runs.get(check)
        if run is not None:
            run.again = run.again or time.monotonic() - run.begun > TIME_TO_CHECK
            return run
        run = Run(time.monotonic())
        try:
            self._call_in_thread(f"Check {name}", partial(self._make, check, run))
        except RuntimeError as error:  # no thread to be had
            run.reason = told(error)
        else:
            self._runs[check] = run
        return run

    def _make(self, check: Check, run: Run) -> None:
        while True:
            reason = _reason(check)
            with self._changed:
                if not run.again:
                    run.reason = reason
                    del self._runs[check]
                    self._changed.notify_all()
                    return
                run.again, run.begun = False, time.monotonic()


def _reason(check: Check) -> str:
    try:
        try:
            result = check()
        finally:
            if apps.ready:  # on a bare bus there may be no Django that could have any
                connections.close_all()
    except BaseException as error:  # SystemExit, too, is for its thread and not for the process
        return told(error)
    if result is False:
        return "returned False"
    return result if isinstance(result, str) else ""


def _outcome(run: Run) -> str:
    if run.reason is None:
        return f"hangs: no answer for {time.monotonic() - run.begun:.1f} s"
    return run.reason


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


def told(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
