"""The one bus of the process, made when this module is first imported."""

from __future__ import annotations

from .joining import joined
from .process_bus import ProcessBus

__all__ = ["ProcessBus", "bus"]

bus = ProcessBus(joined)
