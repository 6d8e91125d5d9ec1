"""The fleet of a process that belongs to no site: this process. In tests it leads, too."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db import transaction

from ..wspbus import Bus
from .fleet import Fleet, Reply
from .inbox import Delivery, Inbox
from .leader import Leader
from .publication import Publication


class OwnProcess(Fleet):
    """Delivers each message in this process."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._inbox = Inbox(bus)

    def broadcast(self, channel: str, args: list[Any]) -> None:
        self._inbox.put(Delivery(f"{socket.gethostname()}:{os.getpid()}", channel, args))

    def ask(self, channel: str, args: list[Any], timeout: float) -> list[Reply]:
        return [own_reply(self._bus, channel, args)]


class AtOnce(Fleet):
    """Delivers each message in this process, in the thread that sends it: for tests.

    The failures of listeners are those of the call. In a transaction, a message comes with the commit.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def broadcast(self, channel: str, args: list[Any]) -> None:
        self._bus.publish(channel, *args)

    def broadcast_in_transaction(self, channel: str, args: list[Any], using: str | None) -> None:
        transaction.on_commit(partial(self.broadcast, channel, args), using=using)

    def ask(self, channel: str, args: list[Any], timeout: float) -> list[Reply]:
        return [own_reply(self._bus, channel, args)]


class OnlyLeader(Leader):
    """The leadership of a process that nothing takes from it: for tests of jobs."""

    def __init__(self) -> None:
        self._token = time.time_ns() // 1000

    @property
    def token(self) -> int:
        return self._token

    @contextmanager
    def fence(self, using: str = "default") -> Generator[int]:
        with transaction.atomic(using=using):
            yield self._token


def own_reply(bus: Bus, channel: str, args: list[Any]) -> Reply:
    """Publish on a channel in this thread, and return the reply of this process."""
    outcome = Publication(bus, channel, args).run()
    roles = sorted(bus.roles or ())
    return Reply(socket.gethostname(), os.getpid(), roles, outcome.results or [], outcome.error)
