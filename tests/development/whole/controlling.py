"""Requests over the control socket of a site in development, on a machine that may be busy."""

from __future__ import annotations

from typing import Any

from django_wspbus.control.finding import FoundSite
from django_wspbus.control.protocol import Error, Reply, Result
from tests import controlled
from tests.servers.load import await_that

HANGS = "does not answer: it is stopped, or C code holds the GIL"


def order(site: FoundSite, action: str) -> tuple[list[str], Reply]:
    """Make a request, and again while the launcher takes a site that is only slow for one that hangs."""
    found: list[tuple[list[str], Reply]] = []

    def is_taken() -> bool:
        found[:] = [controlled.order(site, action)]
        outcome = found[0][1]
        return not (isinstance(outcome, Error) and HANGS in outcome.text)

    await_that(is_taken, lambda: found)
    return found[0]


def result(site: FoundSite, action: str) -> Any:
    """Return the result of a request."""
    outcome = order(site, action)[1]
    assert isinstance(outcome, Result), outcome
    return outcome.value
