"""The reader of SIGNALS: {signal name: action or channel}."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .findings import Place

BUS_METHODS = ("start", "stop", "graceful", "restart", "exit")
SITE_ACTIONS = ("reopen", "more", "fewer")
"""Channels on which the site acts: it reopens the log files, or has a worker more or fewer on each server."""
ACTIONS = (*BUS_METHODS, *SITE_ACTIONS)
UNCATCHABLE = ("SIGKILL", "SIGSTOP")


def signals(place: Place, raw: Any) -> Mapping[str, str | None]:
    if not isinstance(raw, Mapping):
        place.wrong(raw, 'a dict of signal name -> action or channel: {"SIGUSR2": "restart"}')
        return MappingProxyType({})
    for name, action in raw.items():
        _check_name(place.at(name), name)
        if action is not None:
            _check_action(place.at(name), action)
    return MappingProxyType(dict(raw))


def _check_name(place: Place, name: Any) -> None:
    known = [each.name for each in signal.Signals]
    if name in UNCATCHABLE:
        place.add("E008", f"{name} cannot be caught by any process.")
    elif name not in known:
        near = difflib.get_close_matches(str(name).upper(), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else None
        place.add("E007", f"there is no signal {name!r} on this system.", hint)


def _check_action(place: Place, action: Any) -> None:
    if not isinstance(action, str) or not action:
        place.wrong(action, "the name of an action or of a channel, or None to leave it alone")
    elif action not in ACTIONS and (near := _nearest_action(action)):
        message = f"no action is called {action!r}: the signal publishes on a channel of that name."
        place.add("W001", message, f"Did you mean {near[0]!r}?")


def _nearest_action(action: str) -> list[str]:
    return difflib.get_close_matches(action.lower(), ACTIONS, n=1, cutoff=0.8)
