"""Buses in forked children: a child inherits the listeners, and nothing else."""

from __future__ import annotations

import os
import weakref
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .lifespan import Lifespan
from .sleepers import MainSleeper

if TYPE_CHECKING:
    from .bus import Bus


class Parent:
    """What a child does not inherit, to take it back if it goes on with the transition of its parent."""

    def __init__(self, bus: Bus) -> None:
        self._roles = bus.roles
        self._home = bus.waiting.home
        self._lock = bus.turns.lock
        self._exit = bus.exit_under_way
        self._lifespans: list[tuple[Lifespan, AbstractContextManager[Any] | None]] = [
            (lifespan, lifespan.forget()) for lifespan in lifespans(bus)
        ]

    def replace(self, bus: Bus) -> None:
        """Take the place of the parent, in the thread that forked in the middle of a transition."""
        bus.turns.go_on(self._lock)
        bus.waiting.home = self._home
        bus.exit_under_way = self._exit
        bus.roles = self._roles
        for lifespan, context in self._lifespans:
            lifespan.take_back(context)
        bus.at_exit.register()


def lifespans(bus: Bus) -> list[Lifespan]:
    """Return the lifespans that listen on a bus."""
    owners = [getattr(callback, "__self__", None) for callback in bus.listeners.get("stop", ())]
    return [owner for owner in owners if isinstance(owner, Lifespan)]


_buses: list[weakref.ref[Bus]] = []


def follow_forks(bus: Bus) -> None:
    """Make a bus begin afresh in each forked child."""
    _buses.append(weakref.ref(bus, _buses.remove))


def _begin_in_child() -> None:
    MainSleeper.forget()
    for reference in _buses:
        bus = reference()
        if bus is not None:
            parent = Parent(bus)
            bus.begin()
            bus.parent = bus.parent or parent  # else this is the second fork of a daemon
            if bus.roles is not None:
                bus.roles = frozenset()


os.register_at_fork(after_in_child=_begin_in_child)
