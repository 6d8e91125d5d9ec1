"""Several sites on one engine, with real processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..engines import RedisServer
from ..processes import fetch, free_port
from ..projects import GUNICORN, THREADED, Project
from .messaging import ask, broadcast, write_messaging

pytestmark = pytest.mark.extended

WORKERS = {**GUNICORN, "OPTIONS": {"workers": 2, "threads": 4}}


def fleet_of(server: RedisServer, name: str = "shop") -> dict[str, Any]:
    backend = "django_wspbus.fleet.redis.RedisFleet"
    return {"NAME": name, "BACKEND": backend, "OPTIONS": {"url": server.url, "lease": 3}}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis of this test, which may end it."""
    with RedisServer() as server:
        server.start()
        yield server


@pytest.fixture
def other(tmp_path: Path) -> Project:
    """The project of another host."""
    folder = tmp_path / "other"
    folder.mkdir()
    return Project(folder)


def await_members(url: str, count: int) -> list[dict[str, Any]]:
    """Ask until so many processes answer; return the replies."""
    for _ in range(100):
        replies = ask(url, "shop.pid", timeout=1)
        if len(replies) == count and not any(each["missing"] for each in replies):
            return replies
    raise AssertionError(replies)


def test_messages_reach_every_process_of_both_sites_and_all_answer(
    redis: RedisServer, project: Project, other: Project
) -> None:
    write_messaging(project, WORKERS, FLEET=fleet_of(redis))
    write_messaging(other, THREADED, FLEET=fleet_of(redis))
    with project.serve() as one, other.serve() as two:
        url, other_url = one.wait_until_started()["default"], two.wait_until_started()["default"]
        replies = await_members(url, 4)
        assert {each["pid"] for each in replies} >= {one.pid, two.pid}
        broadcast(other_url, range(10))
        assert len({note.pid for note in project.expect_note("changed 9", 3)}) == 3
        broadcast(url, ["back"])
        assert [note.pid for note in other.expect_note("changed back")] == [two.pid]
        # A site that is stopped is named, and what it missed arrives later.
        two.send(signal.SIGSTOP)
        missing = [each for each in ask(url, "shop.pid", timeout=0.5) if each["missing"]]
        assert [each["pid"] for each in missing] == [two.pid]
        broadcast(url, ["meanwhile"])
        two.send(signal.SIGCONT)
        other.expect_note("changed meanwhile")
        # One that leaves is not waited for.
        assert two.stop() == 0
        assert len(ask(url, "shop.pid", timeout=20)) == 3


def test_while_the_engine_is_away_the_site_serves_and_sends_later(
    redis: RedisServer, project: Project, other: Project
) -> None:
    for each in (project, other):
        write_messaging(each, THREADED, FLEET=fleet_of(redis))
    with project.serve() as one, other.serve() as two:
        url, other_url = one.wait_until_started()["default"], two.wait_until_started()["default"]
        await_members(url, 2)
        redis.kill()
        one.wait_for_line("The engine of the fleet is unavailable")
        broadcast(url, range(5))
        project.expect_note("changed 4")
        replies = ask(url, "shop.pid", timeout=1)
        assert [(each["pid"], each["missing"]) for each in replies] == [(0, True), (one.pid, False)]
        redis.start()
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
    redis: RedisServer, project: Project, other: Project
) -> None:
    for each in (project, other):
        write_messaging(each, WORKERS, FLEET=fleet_of(redis))
    with project.serve() as one, other.serve() as two:
        url, other_url = one.wait_until_started()["default"], two.wait_until_started()["default"]
        await_members(url, 6)
        broadcast(other_url, ["before"])
        project.expect_note("changed before", 3)
        fetch(f"{url}/restart")
        broadcast(other_url, range(100))
        one.wait_for_line("Restarted in")
        await_members(url, 6)
        broadcast(other_url, ["after"])
        project.expect_note("changed after", 3)
        arrived = {note.event for note in project.notes() if note.event.startswith("changed ")}
        gaps = {int(note.event.split()[1]) for note in project.notes() if note.event.startswith("gap")}
        lost = 102 - len(arrived)
        assert gaps == ({lost} if lost else set())
        broadcast(url, ["of the next program"])
        other.expect_note("changed of the next program", 3)
        assert [note.event for note in other.notes() if note.event.startswith("gap")] == []


def test_a_management_command_sends_to_the_sites(redis: RedisServer, project: Project) -> None:
    write_messaging(project, THREADED, FLEET=fleet_of(redis))
    with project.serve() as site:
        url = site.wait_until_started()["default"]
        await_members(url, 1)
        result = project.run(
            "shell", "-v", "0", "-c", "from django_wspbus import bus; bus.broadcast('shop.changed', 1)"
        )
        assert (result.stderr, result.stdout) == ("", "")
        project.expect_note("changed 1", pid=site.pid)
        code = "from django_wspbus import bus; bus.broadcast('shop.changed', 'of a command'); "
        code += "print([each.pid for each in bus.ask('shop.pid', timeout=10)])"
        result = project.run("shell", "-v", "0", "-c", code)
        assert (result.stderr, result.stdout.strip()) == ("", f"[{site.pid}]")
        project.expect_note("changed of a command", pid=site.pid)
        # Processes that it forks end before a thread could send.
        code = "import multiprocessing; from django_wspbus import bus; "
        code += "fork = multiprocessing.get_context('fork'); "
        code += "child = fork.Process(target=bus.broadcast, args=('shop.changed', 7)); "
        code += "child.start(); child.join(); print(child.exitcode)"
        result = project.run("shell", "-v", "0", "-c", code)
        assert (result.stderr, result.stdout.strip()) == ("", "0")
        project.expect_note("changed 7", pid=site.pid)


def test_a_process_that_another_program_serves_joins_at_its_first_request(
    redis: RedisServer, project: Project, other: Project
) -> None:
    write_messaging(project, THREADED, FLEET=fleet_of(redis))
    write_messaging(other, THREADED, FLEET=fleet_of(redis))
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "shop.wsgi", "-b", address, "--threads", "2"]
    with project.serve() as one, other.start(*command) as program:
        url = one.wait_until_started()["default"]
        program.wait_for_line("Booting worker")
        pid = int(fetch(f"http://{address}/"))
        replies = await_members(url, 2)
        assert {(each["pid"], *each["roles"]) for each in replies} == {
            (one.pid, "site", "worker"),
            (pid, "worker"),
        }
        broadcast(url, ["x"])
        assert [note.pid for note in other.expect_note("changed x")] == [pid]
        broadcast(f"http://{address}", ["y"])
        project.expect_note("changed y")
        program.stop()
        assert len(ask(url, "shop.pid", timeout=20)) == 1
