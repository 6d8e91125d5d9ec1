"""Asks between two members in one process, over an engine in its memory."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from django_wspbus.conf import FleetSettings
from django_wspbus.fleet.asks import fitting
from django_wspbus.fleet.base import Member, Unavailable
from django_wspbus.fleet.member import FleetMember, Identity
from django_wspbus.fleet.processes import NoProcesses
from django_wspbus.process.process_bus import ProcessBus
from django_wspbus.process.publication import Outcome

from ..processes import DEADLINE
from ..servers.load import await_that
from .own_engine import OwnEngine


class AwayEngine(OwnEngine):
    """An engine that does not answer."""

    def beat(self, member: Member) -> float:
        raise Unavailable("Connection refused.")


Join = Callable[..., FleetMember]


@pytest.fixture
def join() -> Iterator[Join]:
    """Make a member of one fleet."""
    store, members = secrets.token_hex(4), []

    def make(backend: str = "tests.fleet.own_engine.OwnEngine", **options: Any) -> FleetMember:
        settings = FleetSettings(name="shop", backend=backend, options={"store": store, **options})
        members.append(FleetMember(ProcessBus(), settings, NoProcesses(), Identity()))
        members[-1].start()
        return members[-1]

    yield make
    for member in members:
        member.close(5)


def test_results_that_are_too_large_for_a_message_are_an_error(join: Join) -> None:
    one, other = join(), join()
    assert other.relay is not None
    assert other.relay.messages.has_listened.wait(DEADLINE)
    other.bus.subscribe("cache.dump", lambda: "x" * one.largest)
    errors = [reply.error for reply in one.ask("cache.dump", [], DEADLINE)]
    assert errors[0] is None
    assert errors[1] == "Its results have 1,048,580 bytes; 1,048,576 are the most for another member."


def test_a_member_that_leaves_before_it_has_answered_is_not_waited_for(
    join: Join, later: Callable[..., Future[Any]]
) -> None:
    one, other = join(), join()
    assert other.relay is not None
    assert other.relay.messages.has_listened.wait(DEADLINE)
    is_asked, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        is_asked.set()
        goes_on.wait(DEADLINE)

    other.bus.subscribe("cache.size", hang)
    replies = later(one.ask, "cache.size", [], 2 * DEADLINE)
    assert is_asked.wait(DEADLINE)
    other.close(DEADLINE)
    assert [(reply.error, reply.missing) for reply in replies.result(DEADLINE)] == [(None, False)]
    goes_on.set()


def test_results_and_errors_fit_into_a_message() -> None:
    small = Outcome([1, "two"])
    assert fitting(small, len(json.dumps(small.results))) is small
    error = fitting(Outcome(None, "\N{GRINNING FACE}" * 1000), 1200).error
    assert error is not None
    assert len(json.dumps(error)) <= 1202


def test_an_engine_that_was_never_there_has_its_own_reason(join: Join) -> None:
    member = join("tests.fleet.test_asks.AwayEngine")
    assert member.relay is not None
    connection = member.relay.commands.connection
    await_that(lambda: connection.failures)
    own, others = member.ask("cache.size", [], 1)[::-1]
    assert own.error is None
    assert others.missing
    assert others.error == "The other members cannot be asked. Connection refused."
