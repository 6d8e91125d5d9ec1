"""A leader process, its site, or a worker is killed or stopped, in fleets over real engines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from ..engines import EngineServer
from .fleet_of_sites import EFFECT, FleetOfSites

pytestmark = pytest.mark.extended


@pytest.fixture(scope="module", params=["redis", "postgres"])
def engine(request: pytest.FixtureRequest) -> EngineServer:
    server: EngineServer = request.getfixturevalue(f"{request.param}_server")
    if request.param == "postgres":
        request.getfixturevalue("postgres_server").query(EFFECT)
    return server


@pytest.fixture
def fleet(engine: EngineServer) -> Iterator[FleetOfSites]:
    with FleetOfSites(engine) as fleet:
        yield fleet


def test_after_each_fault_of_the_leader_another_process_leads_and_no_two_at_a_time(
    fleet: FleetOfSites,
) -> None:
    fleet.start()
    first = fleet.journal.await_leader()
    os.kill(first.pid, signal.SIGKILL)
    second = fleet.journal.await_leader(first.token)
    fleet.site_of(second).running.kill()
    fleet.journal.await_leader(second.token)
    fleet.journal.check_leaders()
    fleet.journal.check_ticks()
