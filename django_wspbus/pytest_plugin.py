"""The fixture ``bus``: the process's bus, started for one test."""

from __future__ import annotations

import contextlib
import inspect
import os
import threading
import traceback
import weakref
from collections.abc import Generator, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .process.bus import ProcessBus
    from .wspbus.messenger import Subscriptions

THREAD_TIMEOUT = 5.0
"""Seconds for threads to end once the bus has stopped."""

PROCESS_WIDE = ("django.db.", "asgiref.", "asyncio.")
"""Modules whose threads live as long as the process: database connection pools, executors of event loops."""

IN_TEST = pytest.StashKey[bool]()


@pytest.fixture
def bus(request: pytest.FixtureRequest) -> Iterator[ProcessBus]:
    """The process's bus, STARTED with both roles, so that all start listeners of the apps have run.

    ``bus.site`` is this process, and so is the fleet: ``bus.broadcast`` publishes at once. ``bus.leader`` has
    a token, so that a test can call jobs; listeners of the role "leader" do not run. The bus stops after the
    test. The test then fails if it left a subscription behind, or if a thread that it or a listener
    has started is still alive. The subscriptions are restored, so that tests do not affect each other.
    """
    if {"db", "transactional_db"} & set(request.fixturenames):
        # Listeners may use the database, from the start to the stop.
        name = "transactional_db" if "transactional_db" in request.fixturenames else "db"
        request.getfixturevalue(name)
    from django.apps import apps

    from .application.loading import import_urlconf
    from .process.alone import AtOnce, OnlyLeader
    from .process.bus import bus
    from .process.site import LocalSite

    if apps.ready:  # otherwise subscriptions that views make at import would count as the test's
        import_urlconf()
    before, site, fleet, leader = Snapshot(bus), bus.site, bus.fleet, bus.leader
    threads = Threads(request.node.stash)
    bus.site = LocalSite(bus, lambda: {"pid": os.getpid(), "state": bus.state.name, "servers": {}})
    bus.fleet, bus.leader = AtOnce(bus), OnlyLeader()
    try:
        with threads.watched(), bus.running("site", "worker"):
            yield bus
    finally:
        bus.site, bus.fleet, bus.leader = site, fleet, leader
        left = before.restore(bus) + threads.left()
    if left:
        pytest.fail("The test left behind:\n" + "\n".join(f"- {each}" for each in left), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Note that the test itself runs, and not its fixtures."""
    item.stash[IN_TEST] = True
    try:
        return (yield)
    finally:
        item.stash[IN_TEST] = False


class Snapshot:
    """The subscriptions that a bus has before a test."""

    def __init__(self, bus: Any) -> None:
        self.subscriptions: Subscriptions = bus.subscriptions()

    def restore(self, bus: Any) -> list[str]:
        """Restore the subscriptions; return a sentence for each that the test left behind."""
        left = []
        for channel, callbacks in list(bus.listeners.items()):
            for callback in callbacks - self.subscriptions.listeners.get(channel, set()):
                left.append(f"the subscription of {callback!r} to {channel!r}: call bus.unsubscribe()")
        bus.restore(self.subscriptions)
        return left


class Threads:
    """The threads that a test and the listeners start, and those that these threads start.

    Threads of libraries and of other fixtures do not count, such as the live server's for each connection.
    """

    def __init__(self, stash: pytest.Stash) -> None:
        self._stash = stash
        self._home = threading.current_thread()
        self._started: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Note each thread that starts within the block."""
        start = threading.Thread.start

        def note(thread: threading.Thread) -> None:
            if self._is_ours():
                self._started.add(thread)
            start(thread)

        threading.Thread.start = note  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            threading.Thread.start = start  # type: ignore[method-assign]

    def left(self) -> list[str]:
        """Wait for the threads to end; return a sentence for each that is still alive."""
        alive = [thread for thread in self._started if thread.is_alive()]
        for thread in alive:
            thread.join(THREAD_TIMEOUT / len(alive))
        return [
            f"the thread {thread.name!r}: end it in a stop listener" for thread in alive if thread.is_alive()
        ]

    def _is_ours(self) -> bool:
        """Return whether the calling code, about to start a thread, is the test's or a listener's."""
        stack = [frame for frame, _ in traceback.walk_stack(inspect.currentframe())][2:]
        if _is_kept(stack):
            return False
        here = threading.current_thread()
        in_test = here is self._home and self._stash.get(IN_TEST, False)
        return in_test or here in self._started or any(map(_publishes, stack))


def _publishes(frame: FrameType) -> bool:
    from .wspbus import Messenger
    from .wspbus.calls import Calls

    return frame.f_code in {Messenger.publish.__code__, Calls.run.__code__}


def _is_kept(stack: list[FrameType]) -> bool:
    """Return whether a library starts the thread for the whole process, without code of the project."""
    from .project.libraries import is_project_file

    is_pooled = False
    for frame in stack:
        module = str(frame.f_globals.get("__name__"))
        if _publishes(frame) or is_project_file(frame.f_code.co_filename):
            return False
        if module.startswith(PROCESS_WIDE) or (is_pooled and not module.startswith("concurrent.futures.")):
            return True
        is_pooled = is_pooled or module.startswith("concurrent.futures.")
    return False
