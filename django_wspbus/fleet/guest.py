"""The fleet, seen from a process that belongs to no member: a management command, or a shell."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

from .. import conf
from ..conf import FleetSettings
from ..process.alone import OwnProcess
from ..process.fleet import Fleet, Reply
from ..process.process_bus import ProcessBus

if TYPE_CHECKING:
    from .member import FleetMember

# The modules of a member are imported with the first message: every management command imports this one.

TIME_TO_SEND = 5.0
"""Seconds for which the end of the process waits for the engine to take the last messages."""

LAST = -100
"""After all finalizers of multiprocessing, which has joined the process's own children by then."""


class Guest(Fleet):
    """Connects with the engine at the first message. It sends and asks, and is not in the list of members.

    Without FLEET the messages reach this process only.
    """

    def __init__(self, bus: ProcessBus) -> None:
        self._bus = bus
        self._alone = OwnProcess(bus)
        self._lock = threading.Lock()
        self._member: FleetMember | None = None
        self._listens = False
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._member = None
        self._listens = False

    @property
    def largest(self) -> int:  # type: ignore[override]
        from .engines import engine_class

        settings = conf.get().fleet
        return self._alone.largest if settings is None else engine_class(settings).largest

    def broadcast(self, channel: str, args: list[Any]) -> None:
        settings = conf.get().fleet
        target = self._alone if settings is None else self._joined(settings)
        target.broadcast(channel, args)

    @property
    def has_engine(self) -> bool:
        return conf.get().fleet is not None

    def broadcast_in_transaction(self, channel: str, args: list[Any], using: str | None) -> None:
        from .transaction import send_in_transaction

        settings = conf.get().fleet
        if settings is None:
            super().broadcast_in_transaction(channel, args, using)
        else:
            send_in_transaction(settings, channel, args, using)

    def ask(self, channel: str, args: list[Any], timeout: float) -> list[Reply]:
        settings = conf.get().fleet
        target = self._alone if settings is None else self._joined(settings, listens=True)
        return target.ask(channel, args, timeout)

    def _close(self, pid: int) -> None:
        if self._member is not None and pid == os.getpid():
            self._member.close(TIME_TO_SEND)

    def _joined(self, settings: FleetSettings, *, listens: bool = False) -> FleetMember:
        from .member import FleetMember, Identity
        from .processes import NoProcesses

        with self._lock:
            if self._member is None:
                self._member = FleetMember(self._bus, settings, NoProcesses(), Identity(is_listed=False))
                self._member.start(listens=listens)
                _call_at_end(self._close, os.getpid())
            elif listens and not self._listens:
                self._member.listen()
            self._listens |= listens
            return self._member


def _call_at_end(function: Callable[[int], None], pid: int) -> None:
    """Call a function when this process ends."""
    if multiprocessing.parent_process() is None:
        atexit.register(function, pid)
    else:  # a child of multiprocessing calls no atexit handlers
        Finalize(None, function, (pid,), exitpriority=LAST)
