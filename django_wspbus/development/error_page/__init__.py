"""The error page: a program without Django that serves while the project does not boot."""

from __future__ import annotations

from .program import main

__all__ = ["main"]
