"""A host that is cut off from the engine of its fleet, and from the other hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
import pytest

from ..engines import EngineServer, PostgresServer, RedisServer
from .fleet_of_sites import FleetOfSites, prepare
from .network import Network

pytestmark = pytest.mark.extended


class PostgresOfNetwork(PostgresServer):
    """A PostgreSQL that other hosts reach."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__()

    def make_data(self) -> None:
        super().make_data()
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {self.address}/24 trust\n")

    def command(self) -> list[str]:
        return [*super().command(), "-c", f"listen_addresses=127.0.0.1,{self.address}"]


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(params=["redis", "postgres"])
def engine(request: pytest.FixtureRequest, network: Network) -> Iterator[EngineServer]:
    """An engine on the host that is not cut off."""
    with contextlib.ExitStack() as exits:
        if request.param == "redis":
            bind = f"127.0.0.1 {network.near}"
            server: EngineServer = exits.enter_context(RedisServer(bind=bind, protected_mode="no"))
            server.start()
        else:
            postgres = exits.enter_context(PostgresOfNetwork(network.near))
            postgres.start()
            prepare(postgres)
            server = postgres
        yield server


def test_a_host_that_is_cut_off_leads_no_more_and_serves_on(engine: EngineServer, network: Network) -> None:
    with FleetOfSites(engine, host=network.near) as fleet:
        journal, (cut_off, other) = fleet.journal, fleet.sites
        fleet.start(cut_off, within=network.within)
        first = journal.await_leader()
        fleet.start(other)
        sender = other.send()
        journal.await_that(
            lambda: other.send() and journal.notes("received", sender=sender, site=cut_off.name), "message"
        )

        process = psutil.Process(first.pid)
        network.cut()
        other.send(3)
        second = journal.await_leader(first.token, but=[cut_off.name])
        journal.expect("runs", site=other.name)
        cut_off.running.wait_for_line(r"The engine of the fleet is unavailable \(commands\)")
        assert cut_off.status()["fleet"]["up"] is False
        waiting = cut_off.send(5)
        fleet.await_stop(first, process)

        network.mend()
        journal.expect("received", 5, sender=waiting, pid=other.pid)
        other.send()
        journal.await_that(lambda: journal.unaccounted(sender, other.pid, cut_off.pid) == 0, "message or gap")
        assert cut_off.status()["fleet"]["up"] is True
        other.stop()
        journal.await_leader(second.token, but=[other.name])
        cut_off.stop()
        for each in (sender, waiting):
            journal.check_messages(each)
        journal.check_leaders()
        journal.check_ticks()
