"""The action ``listeners``: every listener by channel, priority and role."""

from __future__ import annotations

from typing import Any

from ...control.calls import Action, Call
from ...health.checks import name_of
from ...plugins.monitor import Monitor
from ...wspbus import Lifespan, Listener
from ...wspbus.messenger import WORKER_CHANNELS, Subscriptions
from ..assembly import Assembly

ATTEMPTS = 10


def listeners(site: Assembly) -> Action:
    def answer(call: Call) -> dict[str, Any]:
        found = _subscriptions(site)
        rows = [
            _row(found, channel, callback)
            for channel, callbacks in found.listeners.items()
            for callback in callbacks
        ]
        rows.sort(key=lambda row: (row[0]["channel"], row[0]["priority"], row[1]))
        return {"listeners": [row for row, _ in rows]}

    return answer


def _subscriptions(site: Assembly) -> Subscriptions:
    for _ in range(ATTEMPTS):
        try:
            return site.bus.subscriptions()
        except RuntimeError:  # another thread has subscribed a listener meanwhile
            continue
    return site.bus.subscriptions()


def _row(found: Subscriptions, channel: str, callback: Listener) -> tuple[dict[str, Any], int]:
    """Return a listener as the client sees it, and its serial number."""
    default = (getattr(callback, "priority", 50), 0, None)  # added to `bus.listeners`, as CherryPy allows
    priority, serial, role = found.details.get((channel, callback), default)
    role = role or ("worker" if channel in WORKER_CHANNELS else "any")
    row = {"channel": channel, "priority": priority, "role": role, "listener": name_of_listener(callback)}
    return row, serial


def name_of_listener(listener: Listener) -> str:
    """Return the dotted name of the function that a listener calls."""
    owner = getattr(listener, "__self__", None)
    if isinstance(owner, Lifespan):
        return name_of(owner)
    if isinstance(owner, Monitor):
        return name_of(owner.callback)
    method = getattr(listener, "__name__", None)
    if owner is not None and method is not None and not isinstance(owner, type):
        return f"{name_of(type(owner))}.{method}"
    return name_of(listener)
