"""The state that a site hands over to its next program."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from django_wspbus.children.progress import Progress
from django_wspbus.successor.invocation import STATE
from django_wspbus.successor.state import ChildState, Holdings, LinkState, SiteState, SocketState
from django_wspbus.successor.values import descriptor_of


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATE, "")


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """Two descriptors that an exec would close."""
    with socket.socket() as one, socket.socket() as other:
        yield one.fileno(), other.fileno()


def child_state(pair: int, links: list[LinkState]) -> ChildState:
    return ChildState(
        alias="shop",
        pid=4711,
        pair=pair,
        links=links,
        expected=1,
        is_serving=True,
        has_answered=False,
        time_left=None,
        allowed=0.0,
    )


def test_what_is_left_is_taken_once_and_closed_by_any_later_exec(pair: tuple[int, int]) -> None:
    listening, link = pair
    sockets = [
        SocketState("shop", "127.0.0.1:80", None, listening),
        SocketState("shop", "unix:/s", (1, 2), link),
    ]
    state = LinkState(link, "Process 4711", received="", unsent="", worker=4711, listener=None, is_ready=True)
    left = SiteState(sockets=sockets, children=[child_state(link, [state])], pidfile="/run/shop.pid")
    environment = left.hand_over()
    assert all(map(os.get_inheritable, (listening, link, descriptor_of(STATE, environment))))

    os.environ.update(environment)
    taken = SiteState.take()
    assert taken == left
    assert taken.holdings == Holdings(["127.0.0.1:80", "unix:/s"], "/run/shop.pid")
    assert not os.get_inheritable(listening)
    assert not os.get_inheritable(link)
    assert SiteState.take() is None
    assert STATE not in os.environ


def test_what_a_drain_has_found_is_handed_over(pair: tuple[int, int]) -> None:
    state = child_state(pair[0], [])
    state.why_shortened = ", as a further reload ended this generation"
    state.failed_stops = ["a stop listener of worker 4711 failed."]
    state.cut_off, state.hurried = {"4711": "GET /"}, [4711]
    os.environ.update(SiteState(children=[state]).hand_over())
    taken = SiteState.take()
    assert taken is not None
    assert taken.children == [state]
    progress = Progress()
    progress.adopt(taken.children[0])

    assert progress.cut_off == {4711: "GET /"}
    assert progress.hurried == {4711}
    assert progress.failed_stops == state.failed_stops


def test_sockets_of_which_not_all_descriptors_came_are_not_taken(pair: tuple[int, int]) -> None:
    described = [asdict(SocketState("shop", f"127.0.0.1:{port}", None, port)) for port in (80, 81)]
    taken = SocketState.received(described, pair)
    assert taken == [SocketState("shop", f"127.0.0.1:{port}", None, pair[port - 80]) for port in (80, 81)]

    copy = os.dup(pair[0])
    assert SocketState.received(described, [copy]) is None
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(copy)


def test_the_pipe_of_the_signals_is_left_as_well(pair: tuple[int, int]) -> None:
    os.environ.update(SiteState(signals=(pair[0], [15])).hand_over())

    taken = SiteState.take()
    assert taken is not None
    assert taken.descriptors() == [pair[0]]
