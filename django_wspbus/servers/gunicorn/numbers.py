"""The numbers with which gunicorn would start, and serve nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...children.spawn import MOST_WORKERS
from ...conf.findings import Problem, shown
from ...wspbus import Refusal

if TYPE_CHECKING:
    from ...conf import ServerSettings

WORKERS_VARIABLE = "WEB_CONCURRENCY"
"""The environment variable that says how many workers there are where no option does."""

AT_LEAST_ONE = ("workers", "threads", "worker_connections", "backlog")


def check_number(path: str, name: str, value: Any) -> Iterable[Problem]:
    """Find an option of `AT_LEAST_ONE` that is no whole number above 0."""
    number = _whole(value)
    if number is None or number < 1 or (name == "workers" and number > MOST_WORKERS):
        yield Problem("E012", path, f"got {shown(value)}.", _takes(name))


def check_environment(settings: ServerSettings, *, least: int = 1) -> Iterable[Problem]:
    """Find a value of `WORKERS_VARIABLE` that gunicorn cannot use, or that is below ``least``.

    gunicorn reads the variable when it is imported, and fails then, whatever its options are.
    """
    text = os.environ.get(WORKERS_VARIABLE, "1")
    number = _whole(text, base=10)
    if number is None or not least <= number <= MOST_WORKERS:
        message = f"the environment variable {WORKERS_VARIABLE} is {shown(text)}."
        yield Problem("E012", settings.path("OPTIONS", "workers"), message, _takes("workers"))


def default_workers(settings: ServerSettings) -> int:
    """Return how many workers there are where no option says it; a `Refusal` if there are none."""
    for problem in check_environment(settings):
        raise Refusal(problem.line)
    return int(os.environ.get(WORKERS_VARIABLE, "1"))


def _takes(name: str) -> str:
    return f"It takes a whole number {f'from 1 to {MOST_WORKERS}' if name == 'workers' else 'above 0'}."


def _whole(value: Any, base: int = 0) -> int | None:
    """Return a number as gunicorn reads it, which takes text as well; None if it is none."""
    if isinstance(value, str):
        try:
            return int(value, base)
        except ValueError:
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
