"""Engines that fail and return, and two sites that live with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..servers.load import await_that
from .failing import ENGINES
from .failing_fleet import FailingFleet
from .fleet_of_sites import Site

pytestmark = pytest.mark.extended

LEASE = 1.0


@pytest.fixture(scope="module", params=ENGINES)
def failing(request: pytest.FixtureRequest) -> Iterator[FailingFleet]:
    """Two sites, which the tests of one engine share."""
    with FailingFleet(request.param, 2, LEASE) as failing:
        yield failing


def await_status(site: Site, condition: Callable[[dict[str, Any]], Any]) -> None:
    """Wait until the part "fleet" of the status of a site is as expected."""
    await_that(lambda: condition(site.status()["fleet"]), site.status)


def check_promises(failing: FailingFleet) -> None:
    """Fail if a promise was broken since the sites have started."""
    failing.settle()
    tally = failing.tally()
    tally.check_leaders()
    tally.messages()
    tally.ticks()
    assert tally.problems == []


def check_absence(failing: FailingFleet, fault: str) -> None:
    """Make the engine unavailable for longer than the lease, and fail if the sites do not live with it."""
    one, other = failing.sites
    leader, process = failing.leader()
    with failing.fails(fault):
        await_status(one, lambda status: not status["up"] and status["error"])
        sender = one.send(3)
        # The processes of the site itself get the messages at once.
        sent = len(failing.journal.notes("sent", sender=sender))
        failing.journal.expect("received", sender=sender, number=sent, pid=one.pid)
        status = one.status()["fleet"]
        assert (status["up"], status["waiting"] >= 3) == (False, True)
        failing.fleet.await_stop(leader, process)
        other.send(1)
    failing.await_leader()
    failing.journal.await_leader(leader.token)
    check_promises(failing)
    await_status(other, lambda status: status["up"] and not status["waiting"])

    def counts_gaps(status: dict[str, Any]) -> bool:
        gaps = failing.journal.notes("gap", pid=other.pid)
        return bool(status["missed"] == sum(note.values["missed"] for note in gaps))

    await_status(other, counts_gaps)


@pytest.mark.parametrize("fault", ["killed", "slow", "full", "read_only"])
def test_while_the_engine_is_away_sites_serve_and_all_goes_on_when_it_returns(
    failing: FailingFleet, fault: str
) -> None:
    check_absence(failing, fault)


def test_after_an_engine_has_come_back_empty_another_leader_is_elected(failing: FailingFleet) -> None:
    leader, _ = failing.leader()
    with failing.fails("emptied"):
        for site in failing.sites:
            site.send(3)
    failing.journal.await_leader(leader.token)
    check_promises(failing)


def test_a_failover_that_loses_an_election_ends_the_term_of_the_leader(failing: FailingFleet) -> None:
    with failing.fails("failed_over"):
        first, process = failing.leader()
        process.kill()
        second = failing.journal.await_leader(first.token)
        for site in failing.sites:
            site.send(3)
    failing.journal.await_leader(second.token)
    check_promises(failing)
