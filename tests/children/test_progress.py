"""What the site knows of a child by the reports of its processes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from django_wspbus.children.progress import Progress
from django_wspbus.process.messages import Link
from django_wspbus.process.reports import Died, Expected, Failed, Hello, Ready, Stopped


@pytest.fixture
def links() -> Iterator[list[Link]]:
    sockets = socket.socketpair()
    links = [Link(sock) for sock in sockets]
    yield links
    for link in links:
        link.close()


def test_the_stage_of_a_boot_is_loading_until_the_master_expects_workers(links: list[Link]) -> None:
    progress = Progress()
    assert progress.stage == "its application was still loading"
    progress.note(links[0], Expected(2), is_serving=False)
    assert progress.stage == "0 of 2 workers were ready"
    progress.note(links[0], Ready(1), is_serving=False)
    assert progress.stage == "1 of 2 workers were ready"
    assert not progress.is_ready
    progress.note(links[1], Ready(2), is_serving=False)
    assert progress.is_ready


def test_a_child_without_workers_is_ready_once_it_says_so(links: list[Link]) -> None:
    progress = Progress()
    assert not progress.is_ready
    progress.note(links[0], Expected(0), is_serving=False)
    assert progress.is_ready


def test_workers_that_fail_while_others_serve_are_no_failure_of_the_child(links: list[Link]) -> None:
    progress = Progress()
    progress.note(links[0], Failed("no database", 1), is_serving=True)
    progress.note(links[0], Died(4711), is_serving=True)
    assert progress.failed_workers == ["no database"]
    assert progress.failure is None


@pytest.mark.parametrize(("exits", "failures"), [(True, 1), (False, 0)])
def test_a_ready_worker_that_ends_without_its_stop_listeners_is_named_if_it_was_to_exit(
    links: list[Link], exits: bool, failures: int
) -> None:
    progress = Progress()
    progress.note(links[0], Hello("worker", 4711), is_serving=True)
    progress.note(links[0], Ready(4711), is_serving=True)
    progress.note_end(links[0], exits=exits)

    expected = ["worker 4711 ended before its stop listeners had run."]
    assert progress.failed_stops == expected[:failures]
    assert progress.workers == {}


def test_a_worker_is_at_its_end_with_its_last_link_only(links: list[Link]) -> None:
    progress = Progress()
    for link in links:
        progress.note(link, Hello("worker", 4711), is_serving=True)
    progress.note(links[0], Ready(4711), is_serving=True)
    progress.note_end(links[0], exits=True)

    assert progress.failed_stops == []
    assert list(progress.workers.values()) == [4711]


def test_a_worker_that_has_stopped_is_not_missed_and_its_requests_are_named(links: list[Link]) -> None:
    progress = Progress()
    progress.note(links[0], Hello("worker", 4711), is_serving=True)
    progress.note(links[0], Ready(4711), is_serving=True)
    report = Stopped(4711, ["a stop listener of worker 4711 failed."], "GET /")
    progress.note(links[0], report, is_serving=True)
    progress.note_end(links[0], exits=True)

    assert progress.failed_stops == ["a stop listener of worker 4711 failed."]
    assert progress.cut_off == {4711: "GET /"}
