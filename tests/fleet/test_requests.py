"""The engine as a process of a site uses it, over requests."""

from __future__ import annotations

from typing import Any

import pytest

from django_wspbus.fleet.base import LEADER, Lease, Unavailable
from django_wspbus.fleet.local import LocalEngine
from django_wspbus.fleet.requests import EngineOfSite, Stale, operate


class Site:
    """A site whose engine has failed a number of times."""

    def __init__(self) -> None:
        self.engine = LocalEngine()
        self.engine.set_lease(LEADER, Lease("", 1, 0))
        self.failures = 0

    def ask_within(self, timeout: float, request: str, *args: Any) -> Any:
        try:
            return operate(self.engine, "m1", self.failures, *args)
        except Stale as error:
            raise RuntimeError(str(error)) from error


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def engine(site: Site) -> EngineOfSite:
    return EngineOfSite(site, 1.0)  # type: ignore[arg-type]


def test_a_lease_is_taken_as_it_was_read(engine: EngineOfSite) -> None:
    seen = engine.read()
    assert seen == engine.read() == Lease("", 1, 0)
    taken = engine.take(seen, "one")
    assert taken is not None
    assert engine.renew(taken, 1.0) == Lease("one", taken.token, 1)


def test_a_candidate_learns_that_the_engine_has_failed_since_its_last_look(
    site: Site, engine: EngineOfSite
) -> None:
    engine.read()
    site.failures += 1
    with pytest.raises(Unavailable, match="last writes"):
        engine.read()
    assert engine.read() == Lease("", 1, 0)


def test_a_lease_is_not_taken_if_the_engine_has_failed_since_it_was_read(
    site: Site, engine: EngineOfSite
) -> None:
    seen = engine.read()
    site.failures += 1
    with pytest.raises(Unavailable, match="since the lease was read"):
        engine.take(seen, "one")
    assert site.engine.read(LEADER) == seen
