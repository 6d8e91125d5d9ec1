"""The control socket of a site under test, as a client of its user sees it."""

from __future__ import annotations

from typing import Any

from django_wspbus.control.address import listed
from django_wspbus.control.client import ask
from django_wspbus.control.finding import FoundSite, greet
from django_wspbus.control.protocol import Reply, Result, Step

from .processes import Running


def site_of(program: Running) -> FoundSite:
    """Return the site of a program, which must have one control socket."""
    (site,) = greet([name for name in listed() if name.pid == program.pid])
    assert site.trouble == ""
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
