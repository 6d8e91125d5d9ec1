"""The control socket of a site under test, as a client of its user sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django_wspbus.control.address import listed
from django_wspbus.control.client import ask
from django_wspbus.control.finding import FoundSite, at, greet
from django_wspbus.control.protocol import Reply, Result, Step

from .processes import DEADLINE, Running


def site_of(program: Running) -> FoundSite:
    """Return the site of a program, which must have one control socket."""

    def find() -> FoundSite:
        (site,) = greet([name for name in listed() if name.pid == program.pid])
        return site

    return _once_it_answers(find)


def site_at(path: str) -> FoundSite:
    """Return the site that listens at a path."""
    return _once_it_answers(lambda: at(path))


def _once_it_answers(find: Callable[[], FoundSite]) -> FoundSite:
    """Find a site until it says who it is: a client waits for a second, which a busy machine may need."""
    deadline = time.monotonic() + DEADLINE
    while (site := find()).trouble:
        assert time.monotonic() < deadline, site.trouble
    return site


def order(site: FoundSite, action: str, **arguments: Any) -> tuple[list[str], Reply]:
    """Make a request that may take long; return its steps and its outcome."""
    *steps, outcome = ask(site, action, arguments, timeout=None)
    return [step.text for step in steps if isinstance(step, Step)], outcome


def result(site: FoundSite, action: str, **arguments: Any) -> Any:
    """Return the result of a request."""
    *_, outcome = ask(site, action, arguments)
    assert isinstance(outcome, Result), outcome
    return outcome.value
