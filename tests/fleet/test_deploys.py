"""``graceful --fleet`` and ``restart --fleet`` on several sites."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.control.protocol import Error, Reply, Result

from ..command.conftest import PROGRAM, run
from ..controlled import order, result, site_of
from ..engines import RedisServer
from ..processes import DEADLINE, RunningSite, fetch, free_port
from ..servers.load import await_that
from .hosts import LEASE, Host, fleet_on

pytestmark = pytest.mark.extended

Later = Callable[..., Future[Any]]

BROKEN = "import shop.missing\n"


class Served:
    """A host whose site runs."""

    def __init__(self, host: Host, site: RunningSite) -> None:
        self.host = host
        self.site = site
        self.url = site.wait_until_started()["default"]

    @property
    def name(self) -> str:
        """Its name in a fleet of which all hosts are this machine."""
        return f"{socket.gethostname()}:{self.pid}"

    @property
    def pid(self) -> int:
        return self.site.pid

    @property
    def version(self) -> str:
        """The release that answers."""
        return fetch(self.url)

    @property
    def fleet(self) -> dict[str, Any]:
        found: dict[str, Any] = result(site_of(self.site), "status", fleet=True)["fleet"]
        return found

    def count_members(self) -> int:
        return sum(not each["missing"] for each in self.fleet["members"])

    def order(self, action: str, **arguments: Any) -> tuple[list[str], Reply]:
        return order(site_of(self.site), action, fleet=True, **arguments)


class Hosts:
    def __init__(self, served: list[Served]) -> None:
        self.served = served

    @property
    def versions(self) -> list[str]:
        return [each.version for each in self.served]


@pytest.fixture(scope="module")
def hosts(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts, which the tests of this module share: each leaves all of them on one release."""
    folder = tmp_path_factory.mktemp("fleet")
    made = [Host(folder / name, fleet_on(redis_server)) for name in ("one", "two", "three")]
    with ExitStack() as stack:
        yield Hosts(start(stack, made))


def start(stack: ExitStack, hosts: list[Host], members: int | None = None) -> list[Served]:
    """Start the sites of hosts, and wait until each knows so many members: all of them, if not given."""
    sites = [stack.enter_context(host.serve("-v2")) for host in hosts]
    served = [Served(*pair) for pair in zip(hosts, sites, strict=True)]
    count = members or len(hosts)
    await_that(
        lambda: all(sum(not each["missing"] for each in one.fleet["members"]) == count for one in served)
    )
    return served


def test_one_host_after_another_is_reloaded_and_the_one_that_coordinates_it_is_the_last(hosts: Hosts) -> None:
    one, *others = hosts.served
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "shop.wsgi", "-b", address, "--threads", "2"]
    with one.host.project.start(*command) as program:  # a member that is no site
        program.wait_for_line("Booting worker")
        fetch(f"http://{address}/")
        await_that(lambda: one.count_members() == 4)
        for each in hosts.served:
            each.host.release()
        ran = run("graceful", "--fleet", "--pid", str(one.pid))
        assert (ran.returncode, ran.stderr) == (0, "")
        program.stop()
    named, *steps, outcome = ran.stdout.splitlines()
    assert "1 process of another program, which a deploy does not reach" in named
    assert outcome.startswith("Reloaded 3 hosts in ")
    prefixes = list(dict.fromkeys(line.partition(": ")[0] for line in steps))
    assert prefixes == [*sorted(each.name for each in others), one.name]
    for each in hosts.served:
        assert f"{each.name}: booting 'default'" in steps
        assert any(line.startswith(f"{each.name}: Reloaded in ") for line in steps)
    assert hosts.versions == [str(each.host.number) for each in hosts.served]


def test_a_restart_of_the_fleet_outlives_that_of_the_site_that_coordinates_it(hosts: Hosts) -> None:
    one, *others = hosts.served
    for each in hosts.served:
        each.host.release()
    steps, outcome = one.order("restart", parallel=2)
    assert isinstance(outcome, Result), outcome
    assert outcome.value["message"].startswith("Restarted 3 hosts in ")
    assert steps[-1] == f"{one.name}: executing the next program"
    for each in others:
        assert any(step.startswith(f"{each.name}: Restarted in ") for step in steps)
    assert hosts.versions == [str(each.host.number) for each in hosts.served]
    assert one.fleet["deploy"] is None


def test_a_deploy_stops_at_the_first_host_that_refuses_it_with_the_traceback(hosts: Hosts) -> None:
    before = hosts.versions
    one, *others = hosts.served
    first, second = sorted(others, key=lambda each: each.name)
    one.host.release()
    first.host.release(BROKEN)
    second.host.release()
    ran = run("graceful", "--fleet", "--pid", str(one.pid))
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"{first.name}: The reload failed; the old code keeps serving: ")
    assert "No module named 'shop.missing'" in ran.stderr
    assert ran.stderr.splitlines()[-1] == f"Not begun: {second.name}, {one.name}."
    assert hosts.versions == before
    first.host.release()
    _, outcome = one.order("graceful", parallel=3)
    assert isinstance(outcome, Result), outcome
    assert hosts.versions == [str(each.host.number) for each in hosts.served]


def test_a_second_deploy_is_refused_and_the_first_stops_after_its_client_has_gone(hosts: Hosts) -> None:
    before = {each: each.version for each in hosts.served}
    one, *others = hosts.served
    first, second = sorted(others, key=lambda each: each.name)
    for each in hosts.served:
        each.host.release()
    first.host.hold()
    with one.host.project.start(*PROGRAM, "graceful", "--fleet", "--pid", str(one.pid)) as command:
        command.wait_for_line(f"^{first.name}: ")
        first.host.project.expect_note("held")
        _, outcome = second.order("graceful")
        assert isinstance(outcome, Error), outcome
        running = f"{one.name.partition(':')[0]}, process {one.pid}"
        assert outcome.text == f"Another deploy of the fleet is under way: {running}, runs it."
        assert second.fleet["deploy"] == running
        assert command.stop(signal.SIGINT) == 130
    first.host.let_go()
    await_that(lambda: second.fleet["deploy"] is None)
    assert first.version == str(first.host.number)
    assert [one.version, second.version] == [before[one], before[second]]
    text = "The deploy of the fleet has stopped. The client of the deploy has gone."
    one.site.wait_for_line(text)


def test_hosts_that_end_or_are_away_and_an_engine_that_is_away_are_named(
    tmp_path: Path, later: Later
) -> None:
    with RedisServer() as redis, ExitStack() as stack:
        redis.start()
        served = start(stack, [Host(tmp_path / name, fleet_on(redis)) for name in ("one", "two")])
        one, two = served
        # A host that dies in the middle.
        two.host.hold()
        outcome = later(one.order, "graceful")
        two.host.project.expect_note("held")
        two.site.kill()
        _, reply = outcome.result(DEADLINE)
        assert isinstance(reply, Error), reply
        assert (
            reply.text == f"{two.name}: it has not answered any more for {LEASE:g} s.\nNot begun: {one.name}."
        )
        # One that has vanished.
        await_that(lambda: not one.fleet["well"])
        _, reply = one.order("graceful")
        assert isinstance(reply, Error), reply
        assert " cannot be reached: no sign of life for " in reply.text
        assert "--skip-missing" in reply.text
        _, reply = one.order("graceful", skip_missing=True)
        assert isinstance(reply, Result), reply
        assert (reply.value["hosts"], reply.value["skipped"]) == (1, [two.name])
        # A site that is killed while it coordinates a deploy: its lease ends, and another may begin.
        two.host.let_go()
        (again,) = start(stack, [two.host], 2)
        two.host.hold()
        outcome = later(one.order, "graceful")
        two.host.project.expect_note("held", 2)
        one.site.kill()
        two.host.let_go()
        assert outcome.exception(DEADLINE) is not None
        _, reply = again.order("graceful", skip_missing=True)
        assert isinstance(reply, Result), reply
        assert reply.value["hosts"] == 1
        redis.kill()
        await_that(lambda: not again.fleet["up"])
        _, reply = again.order("graceful")
        assert isinstance(reply, Error), reply
        assert reply.text.startswith("The engine of the fleet is unavailable: ")
