"""A new SECRET_KEY for all hosts of a fleet, while their processes send messages all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.control.protocol import Result

from ..controlled import order, result, site_of
from ..engines import RedisServer
from ..processes import DEADLINE, RunningSite
from ..projects import Note
from ..servers.load import await_that
from .hosts import Host, fleet_on
from .messaging import LISTENERS, URLS, broadcast

pytestmark = pytest.mark.extended

OLD, NEW = "the old key of the hosts", "the new key of the hosts"


class Talker:
    """Has a process of a site send its numbers until `stop`; ``name`` is a part of each message."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.sent: list[str] = []
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(0.1):
            self.sent.append(f"{self.name}-{len(self.sent)}")
            broadcast(self.url, [self.sent[-1]])

    def stop(self) -> None:
        self._ends.set()


@contextmanager
def talking(talkers: list[Talker], later: Callable[..., Future[Any]]) -> Iterator[None]:
    running = [later(each.run) for each in talkers]
    try:
        yield
    finally:
        for each in talkers:
            each.stop()
        for future in running:
            future.result(DEADLINE)


def keys(site: RunningSite) -> set[str]:
    """Return the keys with which the members sign, all of which the site must accept."""
    members = result(site_of(site), "status", fleet=True)["fleet"]["members"]
    assert all(each["accepted"] for each in members)
    return {each["key"] for each in members}


def check_arrivals(host: Host, site: RunningSite, sent: list[str]) -> None:
    """Check that what has not arrived is what the site has announced as missing."""
    last = Note(site.pid, f"changed {sent[-1]}")
    await_that(lambda: last in host.project.notes())
    notes = host.project.notes()
    arrived = {note.event.removeprefix("changed ") for note in notes if note.event.startswith("changed ")}
    gaps = [
        int(note.event.split()[1]) for note in notes if note.event.startswith("gap") and note.pid == site.pid
    ]
    assert len(set(sent) - arrived) == sum(gaps), (set(sent) - arrived, gaps)


def test_a_rolling_deploy_changes_the_key_and_every_message_arrives_or_counts_as_missing(
    tmp_path: Path, later: Callable[..., Future[Any]]
) -> None:
    with RedisServer() as redis, ExitStack() as stack:
        redis.start()
        hosts = [Host(tmp_path / name, fleet_on(redis)) for name in ("one", "two")]
        for host in hosts:
            host.project.listeners(LISTENERS)
            host.project.write("shop/urls.py", URLS)
            host.configure(SECRET_KEY=OLD)
        sites = [stack.enter_context(host.serve("-v2")) for host in hosts]
        urls = [site.wait_until_started()["default"] for site in sites]
        await_that(lambda: all(len(keys(site)) == 1 for site in sites))
        (old,) = keys(sites[0])
        talkers = [Talker(*pair) for pair in zip(("one", "two"), urls, strict=True)]
        with talking(talkers, later):
            for secrets in (
                {"SECRET_KEY": OLD, "SECRET_KEY_FALLBACKS": [NEW]},
                {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": [OLD]},
            ):
                for host in hosts:
                    host.release(URLS)
                    host.configure(**secrets)
                _, outcome = order(site_of(sites[0]), "restart", fleet=True)
                assert isinstance(outcome, Result), outcome
                assert outcome.value["hosts"] == 2
        await_that(lambda: len(keys(sites[0])) == 1 and keys(sites[0]) != {old})
        for name, url, talker in zip(("one", "two"), urls, talkers, strict=True):
            talker.sent.append(f"{name}-last")
            broadcast(url, [talker.sent[-1]])
        for host, site, other in zip(hosts, sites, reversed(talkers), strict=True):
            check_arrivals(host, site, other.sent)
            assert "signed with another SECRET_KEY" not in site.output
