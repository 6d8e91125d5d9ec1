"""Threads that wait for a bus, and the functions that are deferred to one of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .failures import ChannelFailures
from .messenger import Messenger
from .sleepers import Sleeper, make_sleeper


class Home:
    """The thread that is in `block`, or is going to be: it runs the operations that other threads ask for."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.is_leaving = False
        """True once the bus has exited: the thread is about to return from `block`."""


class Waiting:
    """The threads that wait. A change that one of them may wait for has to `wake` it."""

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger
        self.begin()

    def begin(self) -> None:
        """Begin, also in a forked child: the threads of the parent are not there."""
        self.home: Home | None = None
        self.sleepers: dict[Sleeper, str | None] = {}
        """Those that sleep, each with the channel on which it publishes meanwhile."""
        self._deferred: deque[Callable[[], Any]] = deque()

    @property
    def thread(self) -> int | None:
        """The identity of the thread that runs deferred functions."""
        return self.home.thread if self.home is not None else threading.main_thread().ident

    def wake(self) -> None:
        """Make each thread look again whether what it waits for has come."""
        for sleeper in list(self.sleepers):
            sleeper.wake()

    def note_change(self, channel: str | None) -> None:
        """Wake the threads that publish on a channel (None: on any), as it has other listeners now."""
        for sleeper, polled in list(self.sleepers.items()):
            if channel in (None, polled):
                sleeper.wake()

    def wait(
        self,
        done: Callable[[], Any],
        *,
        timeout: float | None = None,
        interval: float = 0.1,
        channel: str | None = None,
    ) -> None:
        """Wait until ``done()`` is true, for some seconds at most, or publish every ``interval`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        sleeper = make_sleeper()
        try:
            while True:
                sleeper.listen()
                self.sleepers[sleeper] = channel  # again, as a fork forgets the sleepers
                self.run_deferred()
                if done():
                    return
                pause = interval if channel is not None and self._is_polled(channel) else None
                if deadline is not None:
                    pause = deadline - time.monotonic()
                    if pause <= 0:
                        return
                if not sleeper.sleep(pause) and channel is not None:
                    self._poll(channel)
        finally:
            self.sleepers.pop(sleeper, None)
            sleeper.close()

    def _is_polled(self, channel: str) -> bool:
        return bool(self._messenger.plan(channel)) or not self._messenger.listeners.reports(channel)

    def _poll(self, channel: str) -> None:
        try:
            self._messenger.publish(channel)
        except ChannelFailures as failures:  # the wait goes on
            self._messenger.report_uncaught(failures)

    def defer(self, function: Callable[[], Any]) -> None:
        """Call a function in the thread that is in `block`; safe in a signal handler."""
        self._deferred.append(function)
        self.wake()

    def run_deferred(self) -> None:
        """Call what has been deferred, if this is the thread to do so."""
        if threading.get_ident() != self.thread:
            return
        while self._deferred:
            function = self._deferred.popleft()
            try:
                function()
            except Exception as error:
                self._messenger.report(f"Error in deferred {function!r}", error)
