"""A leader process, its site, or a worker is killed or stopped, in fleets over real engines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from ..engines import EngineServer, PostgresServer, RedisServer
from ..projects import GUNICORN
from .fleet_of_sites import FleetOfSites
from .journal import Note
from .site_code import EFFECT

pytestmark = pytest.mark.extended


@pytest.fixture(scope="module", params=["redis", "postgres"])
def engine(request: pytest.FixtureRequest) -> EngineServer:
    server: EngineServer = request.getfixturevalue(f"{request.param}_server")
    if isinstance(server, PostgresServer):
        server.query(EFFECT)
    return server


@pytest.fixture(scope="module")
def running(engine: EngineServer) -> Iterator[FleetOfSites]:
    """A fleet of two sites, which the tests of a module share: both run after each test."""
    with FleetOfSites(engine) as fleet:
        fleet.start()
        yield fleet
        fleet.journal.check_ticks()
        for site in fleet.sites:
            site.stop()
        fleet.journal.check_leaders()


@pytest.fixture
def fleet(running: FleetOfSites) -> Iterator[FleetOfSites]:
    yield running
    running.journal.check_leaders()


def follow(fleet: FleetOfSites, leader: Note) -> Note:
    """Wait for the next leader, in another process, and until it has run a job; return its note."""
    following = fleet.journal.await_leader(leader.token)
    assert following.pid != leader.pid
    fleet.journal.expect("runs", pid=following.pid)
    return following


def test_a_leader_process_that_is_killed_is_followed_and_its_site_serves_on(fleet: FleetOfSites) -> None:
    leader = fleet.journal.await_leader()
    site = fleet.site_of(leader)
    os.kill(leader.pid, signal.SIGKILL)
    assert int(site.get("/")) == site.pid
    follow(fleet, leader)


def test_a_site_that_is_killed_takes_its_leader_process_with_it(fleet: FleetOfSites) -> None:
    leader = fleet.journal.await_leader()
    site = fleet.site_of(leader)
    os.kill(site.pid, signal.SIGKILL)
    assert fleet.site_of(follow(fleet, leader)) is not site
    site.running.wait_for_members()
    fleet.start(site)


def test_a_leader_process_that_is_stopped_for_longer_than_its_lease_acts_no_more(fleet: FleetOfSites) -> None:
    leader = fleet.journal.await_leader()
    process = psutil.Process(leader.pid)
    os.kill(leader.pid, signal.SIGSTOP)
    following = fleet.journal.await_leader(leader.token)
    os.kill(leader.pid, signal.SIGCONT)
    fleet.await_stop(leader, process)
    fleet.journal.expect("runs", pid=following.pid)


def test_a_site_that_is_stopped_for_longer_than_its_lease_acts_no_more(fleet: FleetOfSites) -> None:
    leader = fleet.journal.await_leader()
    site = fleet.site_of(leader)
    stopped, process = site.running.members(), psutil.Process(leader.pid)
    for each in stopped:
        each.suspend()
    assert fleet.site_of(follow(fleet, leader)) is not site
    for each in stopped:
        each.resume()
    fleet.await_stop(leader, process)
    (other,) = fleet.others(site)

    def arrives() -> bool:
        return bool(fleet.journal.notes("received", sender=other.send(), pid=site.pid))

    fleet.journal.await_that(arrives, "message to the site that continues")


def test_after_an_exit_and_after_a_reload_another_process_leads(fleet: FleetOfSites) -> None:
    leader = fleet.journal.await_leader()
    site = fleet.site_of(leader)
    site.stop()
    second = follow(fleet, leader)
    fleet.start(site)
    fleet.site_of(second).running.send(signal.SIGUSR1)
    follow(fleet, second)
    fleet.journal.expect("stops", token=second.token)


DIES = """

@bus.subscribe("shop.number", priority=60, role="worker")
def die(sender, number):
    import os
    import signal

    from .journal import ROOT, SITE

    if SITE == "a":
        try:
            os.remove(ROOT / "one worker dies")
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_is_killed_inside_a_listener_harms_no_other_process(redis_server: RedisServer) -> None:
    workers = {**GUNICORN, "OPTIONS": {"workers": 2}}
    with FleetOfSites(redis_server, lease=2, site=workers, code=DIES) as fleet:
        fleet.start()
        one, two = fleet.sites

        def pids() -> set[int]:
            """Return the processes of the first site that have got messages, after another one is sent."""
            two.send()
            return {note.pid for note in fleet.journal.notes("received", site="a")}

        fleet.journal.await_that(lambda: len(pids()) == 4, "site, leader process and two workers")
        before = pids()
        (fleet.root / "one worker dies").touch()
        sender = two.send(3)
        one.running.wait_for_line("was sent SIGKILL")
        fleet.journal.await_that(lambda: len(pids()) == 5, "new worker")
        last = fleet.journal.notes("sent", sender=sender)[-1].values["number"]
        got_last = fleet.journal.expect("received", 3, site="a", sender=sender, number=last)
        assert len({note.pid for note in got_last} & before) == 3
        for each in {note.values["sender"] for note in fleet.journal.notes("sent")}:
            fleet.journal.check_messages(each)
        for site in fleet.sites:
            site.stop()


SLOW = """

def slow():
    from .journal import ROOT

    note("begins")
    while (ROOT / "held").exists():
        threading.Event().wait(0.01)


bus.subscribe(JOBS, Job(slow, Often("* * * * *", "UTC"), name="slow"), role="leader")
"""


def test_a_run_in_a_leader_process_that_is_stopped_ends_with_it_and_no_other_begins_before(
    redis_server: RedisServer,
) -> None:
    with FleetOfSites(redis_server, code=SLOW) as fleet:
        journal = fleet.journal
        (fleet.root / "held").touch()
        fleet.start()
        (begun,) = journal.expect("begins")
        os.kill(begun.pid, signal.SIGSTOP)
        leader = journal.await_leader(journal.notes("leads", pid=begun.pid)[-1].token)
        fleet.site_of(leader).running.wait_for_line("Job slow: .* it still runs")
        assert journal.notes("begins") == [begun]
        (fleet.root / "held").unlink()
        os.kill(begun.pid, signal.SIGCONT)
        journal.expect("begins", 2)
        journal.check_leaders()
        journal.check_ticks()
