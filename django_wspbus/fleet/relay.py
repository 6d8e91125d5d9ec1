"""The connection of a member with its fleet."""

from __future__ import annotations

from .commands import Commands as Commands
