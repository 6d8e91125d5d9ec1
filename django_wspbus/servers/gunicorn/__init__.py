"""gunicorn, in a child process."""

from __future__ import annotations

from .server import GunicornServer

__all__ = ["GunicornServer"]
