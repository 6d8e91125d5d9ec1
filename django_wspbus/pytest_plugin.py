"""The fixture ``bus``: the process's bus, started for one test."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .process import ProcessBus
    from .wspbus import Listener

GRACE = 5.0
"""Seconds that threads have to end once the bus has stopped."""


@pytest.fixture
def bus(request: pytest.FixtureRequest) -> Iterator[ProcessBus]:
    """The process's bus, STARTED with both roles, so that every listener of the project's apps has run.

    ``bus.site`` is this process. After the test the bus is stopped. A thread or a subscription that
    the test, or what it called, left behind is an error; the subscriptions are put back as they were,
    so that no test sees another's.
    """
    if {"db", "transactional_db"} & set(request.fixturenames):
        # Listeners may use the database, from the start to the stop.
        name = "transactional_db" if "transactional_db" in request.fixturenames else "db"
        request.getfixturevalue(name)
    from django.apps import apps

    from .application import import_urlconf
    from .process import bus
    from .site import LocalSite

    if apps.ready:  # as a server does: else what views subscribe at import would seem to be the test's
        import_urlconf()
    before, site = Snapshot(bus), bus.site
    bus.site = LocalSite(bus, lambda: {"pid": os.getpid(), "state": bus.state.name, "servers": {}})
    try:
        with bus.running("site", "worker"):
            yield bus
    finally:
        bus.site = site
        left = before.restore(bus)
    if left:
        pytest.fail("The test left behind:\n" + "\n".join(f"- {each}" for each in left), pytrace=False)


class Snapshot:
    """What a bus and its process have before a test: subscriptions and threads."""

    def __init__(self, bus: Any) -> None:
        self.threads = set(threading.enumerate())
        self.order = dict(bus._order)
        self.listeners: dict[str, set[Listener]] = {
            channel: set(callbacks) for channel, callbacks in bus.listeners.items()
        }

    def restore(self, bus: Any) -> list[str]:
        """Put the subscriptions back; return what was left behind, one sentence each."""
        left = []
        for channel, callbacks in list(bus.listeners.items()):
            for callback in callbacks - self.listeners.get(channel, set()):
                left.append(f"the subscription of {callback!r} to {channel!r}: call bus.unsubscribe()")
        bus.listeners.clear()
        bus.listeners.update(self.listeners)
        bus._order.clear()
        bus._order.update(self.order)
        return left + self._threads_left()

    def _threads_left(self) -> list[str]:
        new = set(threading.enumerate()) - self.threads
        for thread in new:
            thread.join(GRACE / len(new))
        return [
            f"the thread {thread.name!r}: end it in a stop listener" for thread in new if thread.is_alive()
        ]
