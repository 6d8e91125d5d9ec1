"""Buses in forked children: a child inherits the listeners, and nothing else."""

from __future__ import annotations

import os
import weakref
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from .core import Core
from .ending import AtExit
from .lifespan import Lifespan
from .sleepers import MainSleeper


class Parent:
    """All that a child does not inherit, and takes back if it goes on with the transition of its parent."""

    def __init__(self, bus: Core) -> None:
        self._roles = bus.roles
        self._home = bus.waiting.home
        self._lock = bus.turns.lock
        self._exit = bus.exit_under_way
        self._lifespans: list[tuple[Lifespan, AbstractContextManager[Any] | None]] = [
            (lifespan, lifespan.forget()) for lifespan in lifespans(bus)
        ]

    def replace(self, bus: Core, at_exit: AtExit) -> None:
        """Take the place of the parent, in the thread that forked in the middle of a transition."""
        bus.turns.go_on(self._lock)
        bus.waiting.home = self._home
        bus.exit_under_way = self._exit
        bus.roles = self._roles
        for lifespan, context in self._lifespans:
            lifespan.take_back(context)
        at_exit.register()


def lifespans(bus: Core) -> list[Lifespan]:
    """Return the lifespans that listen on a bus."""
    owners = [getattr(callback, "__self__", None) for callback in bus.listeners.get("stop", ())]
    return [owner for owner in owners if isinstance(owner, Lifespan)]


_buses: weakref.WeakKeyDictionary[Core, weakref.ref[AtExit]] = weakref.WeakKeyDictionary()


def follow_forks(bus: Core, at_exit: AtExit) -> None:
    """Make a bus begin afresh in each forked child."""
    _buses[bus] = weakref.ref(at_exit)


def _begin_in_child() -> None:
    MainSleeper.forget()
    for bus, reference in list(_buses.items()):
        at_exit = reference()
        if at_exit is not None:
            parent = Parent(bus)
            bus.begin()
            if bus.replace_parent is None:  # else this is the second fork of a daemon
                bus.replace_parent = partial(parent.replace, bus, at_exit)
            if bus.roles is not None:
                bus.roles = frozenset()


os.register_at_fork(after_in_child=_begin_in_child)
