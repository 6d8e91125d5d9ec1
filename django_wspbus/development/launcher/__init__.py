"""The launcher of development: a small process that holds the sockets of a site, and starts it again.

It imports neither Django nor the project, so that there is nothing an edit could break.
"""

from __future__ import annotations

from .entry import become
from .program import main
from .start import LauncherStart

__all__ = ["LauncherStart", "become", "main"]
