"""Django's own threaded server, in a thread of the site process."""

from __future__ import annotations

from .server import ThreadedServer

__all__ = ["ThreadedServer"]
