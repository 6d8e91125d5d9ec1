"""Several sites on one engine, with real processes."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..engines import RedisServer
from ..processes import RunningSite, fetch, free_port
from ..projects import GUNICORN, THREADED, Project
from ..servers.load import await_that
from .messaging import ask, broadcast, write_messaging

pytestmark = pytest.mark.extended

WORKERS = {**GUNICORN, "OPTIONS": {"workers": 2, "threads": 4}}


def fleet_of(server: RedisServer, lease: float = 15) -> dict[str, Any]:
    backend = "django_wspbus.fleet.redis.RedisFleet"
    return {"NAME": "shop", "BACKEND": backend, "OPTIONS": {"url": server.url, "lease": lease}}


@pytest.fixture
def other(tmp_path: Path) -> Project:
    """The project of another host."""
    folder = tmp_path / "other"
    folder.mkdir()
    return Project(folder)


@dataclass(frozen=True)
class Served:
    """A project, the site that serves it, and the URL."""

    project: Project
    site: RunningSite
    url: str


@pytest.fixture(scope="module")
def sites(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Served]]:
    """A site with two workers, and one that serves in the site process, both of which stay."""
    with contextlib.ExitStack() as exits:
        found = []
        for server in (WORKERS, THREADED):
            project = Project(tmp_path_factory.mktemp("host"))
            write_messaging(project, server, FLEET=fleet_of(redis_server))
            site = exits.enter_context(project.serve())
            found.append(Served(project, site, site.wait_until_started()["default"]))
        one, two = found
        await_members(one.url, 4)
        yield one, two


def connections(redis: RedisServer) -> int:
    """Return the number of connections that members have."""
    return redis.call("CLIENT", "LIST").count(" name=wspbus ")


def await_members(url: str, count: int) -> list[dict[str, Any]]:
    """Ask until so many processes answer; return the replies."""
    for _ in range(100):
        replies = ask(url, "shop.pid", timeout=1)
        if len(replies) == count and not any(each["missing"] for each in replies):
            return replies
    raise AssertionError(replies)


def await_missing(url: str, pid: int) -> None:
    """Ask until a process that is stopped is the only one that does not answer in time."""

    def is_missing() -> bool:
        return [each["pid"] for each in ask(url, "shop.pid", timeout=0.5) if each["missing"]] == [pid]

    await_that(is_missing)


def test_messages_reach_every_process_of_both_sites_and_all_answer_over_two_connections_each(
    sites: tuple[Served, Served], redis_server: RedisServer
) -> None:
    one, two = sites
    replies = await_members(one.url, 4)
    assert {each["pid"] for each in replies} >= {one.site.pid, two.site.pid}
    assert connections(redis_server) == 4
    broadcast(two.url, range(10))
    assert len({note.pid for note in one.project.expect_note("changed 9", 3)}) == 3
    broadcast(one.url, ["back"])
    assert [note.pid for note in two.project.expect_note("changed back")] == [two.site.pid]
    # A site that is stopped is named, and what it missed arrives later.
    two.site.send(signal.SIGSTOP)
    try:
        await_missing(one.url, two.site.pid)
        broadcast(one.url, ["meanwhile"])
    finally:
        two.site.send(signal.SIGCONT)
    two.project.expect_note("changed meanwhile")


def test_while_the_engine_is_away_the_site_serves_and_sends_later(
    own_redis: RedisServer, project: Project, other: Project
) -> None:
    for each in (project, other):
        write_messaging(each, THREADED, FLEET=fleet_of(own_redis, lease=3))
    with project.serve() as one, other.serve() as two:
        url, other_url = one.wait_until_started()["default"], two.wait_until_started()["default"]
        await_members(url, 2)
        own_redis.kill()
        one.wait_for_line("The engine of the fleet is unavailable")
        broadcast(url, range(5))
        project.expect_note("changed 4")
        replies = ask(url, "shop.pid", timeout=1)
        assert [(each["pid"], each["missing"]) for each in replies] == [(0, True), (one.pid, False)]
        own_redis.start()
        # The other site gets the messages if it listens again by then; else it learns that it missed them.
        two.wait_for_line(r"answers again \(commands\)")
        await_members(url, 2)
        broadcast(url, ["again"])
        other.expect_note("changed again")
        gaps = [int(event.split()[1]) for event in other.events() if event.startswith("gap")]
        arrived = [event for event in other.events() if event.startswith("changed")]
        assert len(arrived) == len(set(arrived))
        assert sum(gaps) >= 6 - len(arrived)
        broadcast(other_url, ["back"])
        project.expect_note("changed back")


def test_a_restart_goes_on_as_the_same_member_and_notices_what_it_missed(
    sites: tuple[Served, Served],
) -> None:
    one, two = sites
    before = len(one.project.notes()), len(two.project.notes())
    broadcast(two.url, ["before"])
    one.project.expect_note("changed before", 3)
    fetch(f"{one.url}/restart")
    broadcast(two.url, range(100, 200))
    one.site.wait_for_line("Restarted in")
    await_members(one.url, 4)
    broadcast(two.url, ["after"])
    one.project.expect_note("changed after", 3)
    events = {note.event for note in one.project.notes()[before[0] :]}
    gaps = {int(event.split()[1]) for event in events if event.startswith("gap")}
    lost = 102 - len([event for event in events if event.startswith("changed")])
    assert gaps == ({lost} if lost else set())
    broadcast(one.url, ["of the next program"])
    two.project.expect_note("changed of the next program")
    assert [note.event for note in two.project.notes()[before[1] :] if note.event.startswith("gap")] == []


def test_a_management_command_sends_to_the_sites(sites: tuple[Served, Served]) -> None:
    one, two = sites

    def run(code: str) -> str:
        result = one.project.run("shell", "-v", "0", "-c", f"from django_wspbus import bus; {code}")
        assert result.stderr == ""
        return result.stdout.strip()

    assert run("bus.broadcast('shop.changed', 'of a command')") == ""
    two.project.expect_note("changed of a command", pid=two.site.pid)
    code = "bus.broadcast('shop.changed', 'asks'); "
    code += "print(sorted(each.pid for each in bus.ask('shop.pid', timeout=10)))"
    assert run(code) == str(sorted(each["pid"] for each in await_members(one.url, 4)))
    two.project.expect_note("changed asks", pid=two.site.pid)
    # Processes that it forks end before a thread could send.
    code = "import multiprocessing; fork = multiprocessing.get_context('fork'); "
    code += "child = fork.Process(target=bus.broadcast, args=('shop.changed', 'of a fork')); "
    code += "child.start(); child.join(); print(child.exitcode)"
    assert run(code) == "0"
    two.project.expect_note("changed of a fork", pid=two.site.pid)


def test_a_process_that_another_program_serves_joins_at_its_first_request_and_leaves_at_its_end(
    sites: tuple[Served, Served], redis_server: RedisServer, other: Project
) -> None:
    one, _ = sites
    write_messaging(other, THREADED, FLEET=fleet_of(redis_server))
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "shop.wsgi", "-b", address, "--threads", "2"]
    with other.start(*command) as program:
        program.wait_for_line("Booting worker")
        pid = int(fetch(f"http://{address}/"))
        replies = await_members(one.url, 5)
        assert [each["roles"] for each in replies if each["pid"] == pid] == [["worker"]]
        assert connections(redis_server) == 6
        broadcast(one.url, ["x"])
        assert [note.pid for note in other.expect_note("changed x")] == [pid]
        broadcast(f"http://{address}", ["y"])
        one.project.expect_note("changed y", 3)
        program.stop()
        assert len(ask(one.url, "shop.pid", timeout=20)) == 4
