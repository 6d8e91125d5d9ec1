"""Without FLEET, broadcasts and asks reach the processes of the site."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from ..controlled import result, site_of
from ..processes import DEADLINE, RunningSite, fetch
from ..projects import GUNICORN, THREADED, Project
from ..servers.load import await_that, await_value
from .messaging import ask, broadcast, write_messaging

WORKERS = {**GUNICORN, "OPTIONS": {"workers": 2, "threads": 4}}


def changes(project: Project, pid: int) -> list[str]:
    return [note.event for note in project.notes() if note.pid == pid and note.event.startswith("changed")]


Workers = tuple[Project, RunningSite, str]


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """A site with two workers, which the tests share."""
    project = Project(tmp_path_factory.mktemp("project"))
    write_messaging(project, WORKERS)
    with project.serve() as site:
        yield project, site, site.wait_until_started()["default"]


def test_a_broadcast_of_a_worker_reaches_every_process_in_its_order(workers: Workers) -> None:
    project, site, url = workers
    broadcast(url, range(20))
    pids = {note.pid for note in project.expect_note("changed 19", 3)}
    assert site.pid in pids
    for pid in pids:
        assert changes(project, pid) == [f"changed {number}" for number in range(20)]


def test_a_broadcast_of_the_site_process_reaches_every_process(workers: Workers) -> None:
    project, site, url = workers
    fetch(f"{url}/say?value=7")
    assert site.pid in {note.pid for note in project.expect_note("changed 7", 3)}


def test_every_process_answers_an_ask(workers: Workers) -> None:
    _, site, url = workers
    replies = ask(url, "shop.pid")
    assert [each["pid"] for each in replies] == [each["result"] for each in replies]
    assert [each["roles"] for each in replies if each["pid"] == site.pid] == [["site"]]
    assert [each["roles"] for each in replies].count(["worker"]) == 2
    assert len({each["host"] for each in replies}) == 1


@pytest.mark.extended
def test_the_failure_of_a_listener_is_the_error_of_a_reply(workers: Workers) -> None:
    _, site, url = workers
    errors = {each["pid"]: each["error"] for each in ask(url, "shop.fails")}
    assert errors.pop(site.pid) is None
    assert set(errors.values()) == {"ValueError: no stock"}


@pytest.mark.extended
def test_a_stopped_worker_is_named_and_misses_nothing_that_fits(workers: Workers) -> None:
    project, site, url = workers
    stopped = next(each["pid"] for each in ask(url, "shop.pid") if each["pid"] != site.pid)
    os.kill(stopped, signal.SIGSTOP)
    try:

        def missing() -> list[tuple[int, str]]:
            replies = ask(url, "shop.pid", timeout=0.5)
            return [(each["pid"], each["error"]) for each in replies if each["missing"]]

        await_value(missing, [(stopped, "did not answer within 0.5 s")])
        broadcast(url, ["meanwhile"])
        assert stopped not in {note.pid for note in project.expect_note("changed meanwhile", 2)}
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert stopped in {note.pid for note in project.expect_note("changed meanwhile", 3)}


@pytest.mark.extended
def test_a_slow_listener_delays_no_other_process(workers: Workers) -> None:
    project, site, url = workers
    slow = next(each["pid"] for each in ask(url, "shop.pid") if each["pid"] != site.pid)
    broadcast(url, [slow], "shop.slow")
    project.expect_note("slow")
    broadcast(url, ["after"])
    assert slow not in {note.pid for note in project.expect_note("changed after", 2)}
    assert {each["pid"] for each in ask(url, "shop.pid") if not each["missing"]} >= {slow, site.pid}


@pytest.mark.extended
def test_a_stopped_site_delays_no_request_and_what_does_not_fit_is_counted(workers: Workers) -> None:
    project, site, url = workers
    site.send(signal.SIGSTOP)
    try:
        fetch(f"{url}/flood?count=30000")
    finally:
        site.send(signal.SIGCONT)
    project.expect_note("flood 29999", 3)
    lost: Counter[int] = Counter()
    for note in project.notes():
        if note.event.startswith("gap"):
            lost[note.pid] += int(note.event.split()[1])
    assert len(lost) == 3
    # A process that is slow as well may lose this message, and gets another.
    assert max(lost.values()) > 10_000


@pytest.mark.extended
def test_a_worker_that_is_killed_is_not_waited_for(
    workers: Workers, later: Callable[..., Future[Any]]
) -> None:
    project, site, url = workers
    victim = next(each["pid"] for each in ask(url, "shop.pid") if each["pid"] != site.pid)
    os.kill(victim, signal.SIGSTOP)
    asked = later(ask, url, "shop.asked", 20)
    project.expect_note("asked", 2)
    os.kill(victim, signal.SIGKILL)
    replies = asked.result(DEADLINE)
    assert [each["missing"] for each in replies] == [False, False]
    assert victim not in {each["pid"] for each in replies}


@pytest.mark.extended
def test_a_worker_that_stands_by_or_retires_gets_broadcasts_and_does_not_answer(
    project: Project, later: Callable[..., Future[Any]]
) -> None:
    recycling = {"OPTIONS": {"workers": 1, "threads": 2}, "RECYCLE": {"REQUESTS": 50}}
    write_messaging(project, {**GUNICORN, **recycling})
    with project.serve() as site:
        url = site.wait_until_started()["default"]
        await_that(lambda: "standby" in states(site))  # it is forked when the first one serves
        broadcast(url, ["x"])
        everywhere = {note.pid for note in project.expect_note("changed x", 3)}
        old = int(fetch(url))
        assert {each["pid"] for each in ask(url, "shop.pid")} == {site.pid, old}
        assert {site.pid, old} < everywhere
        held = later(fetch, f"{url}/wait")
        project.expect_note("waits")
        answering = {old}
        await_that(lambda: answering.add(int(fetch(url))) or len(answering) == 2)
        broadcast(url, ["y"])
        project.expect_note("changed y", pid=old)
        assert {each["pid"] for each in ask(url, "shop.pid")} == {site.pid, *answering} - {old}
        project.write("go", "")
        assert int(held.result(DEADLINE)) == old


def states(site: RunningSite) -> list[str]:
    """Return the states of the processes of the server."""
    processes = result(site_of(site), "status")["servers"]["default"]["processes"]
    return [each["state"] for each in processes]


@pytest.mark.extended
def test_greenlets_send_and_receive(project: Project) -> None:
    write_messaging(project, {**GUNICORN, "OPTIONS": {"workers": 2, "worker_class": "gevent"}})
    with project.serve() as site:
        url = site.wait_until_started()["default"]
        broadcast(url, range(100))
        assert len({note.pid for note in project.expect_note("changed 99", 3)}) == 3
        assert len(ask(url, "shop.pid")) == 3


def test_the_threaded_server_delivers_in_the_site_process(project: Project) -> None:
    write_messaging(project, THREADED)
    with project.serve() as site:
        url = site.wait_until_started()["default"]
        assert broadcast(url, ["x"]) == site.pid
        assert [note.pid for note in project.expect_note("changed x")] == [site.pid]
        (reply,) = ask(url, "shop.pid")
        assert (reply["pid"], reply["result"], reply["roles"]) == (site.pid, site.pid, ["site", "worker"])
