"""What answers in the place of a project that does not boot: a program of its own, without Django."""

from __future__ import annotations

from .program import main

__all__ = ["main"]
