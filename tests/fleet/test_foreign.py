"""A process that another program serves, as a member of the fleet."""

from __future__ import annotations

import atexit
import os
import secrets
from typing import Any

import pytest

from django_wspbus.process.bus import ProcessBus
from django_wspbus.wsgi import WorkerApplication

from ..servers.load import await_that
from .own_engine import OwnEngine


def test_it_joins_at_its_first_request_shows_that_it_has_started_and_leaves_at_its_end(settings: Any) -> None:
    """The next sign of life would come after 20 minutes."""
    store = secrets.token_hex(4)
    options = {"store": store, "lease": 3600}
    backend = "tests.fleet.own_engine.OwnEngine"
    settings.WSPBUS = {"FLEET": {"NAME": "shop", "BACKEND": backend, "OPTIONS": options}}
    engine, bus = OwnEngine("shop", store), ProcessBus()
    app = WorkerApplication(lambda environ, start_response: [b""], bus)
    assert engine.members() == []
    app({}, lambda *args: None)
    try:
        await_that(
            lambda: [(each.pid, each.state) for each in engine.members()] == [(os.getpid(), "STARTED")]
        )
        heard: list[Any] = []
        bus.subscribe("shop.changed", heard.append)
        bus.broadcast("shop.changed", 1)
        await_that(lambda: heard == [1])
        (reply,) = bus.ask("shop.changed", 2, timeout=20)
        assert (reply.pid, reply.error) == (os.getpid(), None)
    finally:
        app._exit(os.getpid())
        atexit.unregister(app._exit)
    assert engine.members() == []


def test_an_engine_that_cannot_be_made_keeps_no_process_from_serving(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.WSPBUS = {"FLEET": {"NAME": "shop", "BACKEND": "tests.nowhere.Engine"}}
    bus, started = ProcessBus(), []
    bus.subscribe("start", lambda: started.append("started"))
    app = WorkerApplication(lambda environ, start_response: [b"served"], bus)
    try:
        assert app({}, lambda *args: None) == [b"served"]
        assert started == ["started"]
        assert "No module named 'tests.nowhere'" in caplog.text
    finally:
        app._exit(os.getpid())
        atexit.unregister(app._exit)
