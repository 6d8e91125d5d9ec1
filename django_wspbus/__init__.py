"""A process lifecycle for Django: one Web Site Process Bus for each process.

The public names are imported on first use, so that this package imports without Django's settings.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fleet.cron import cron
    from .plugins.monitor import every
    from .process.bus import ProcessBus
    from .process.leader import NotLeader
    from .process.site import SiteUnreachable
    from .wspbus import Bus, ChannelFailures, Refusal, states
    from .wspbus.plugin import Plugin

    bus: ProcessBus

__version__ = "0.1.0"
__all__ = [
    "Bus",
    "ChannelFailures",
    "NotLeader",
    "Plugin",
    "Refusal",
    "SiteUnreachable",
    "bus",
    "cron",
    "every",
    "states",
]

_HOMES = {
    "Bus": "wspbus",
    "ChannelFailures": "wspbus",
    "NotLeader": "process.leader",
    "Plugin": "wspbus.plugin",
    "Refusal": "wspbus",
    "SiteUnreachable": "process.site",
    "bus": "process.bus",
    "cron": "fleet.cron",
    "every": "plugins.monitor",
    "states": "wspbus",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
