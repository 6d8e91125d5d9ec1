"""The facts by which a client tells sites apart."""

from __future__ import annotations

import os
from typing import Any

from .. import __version__


def introduction(settings: str, directory: str) -> dict[str, Any]:
    """Return the result of the action "hello" in this process."""
    return {
        "pid": os.getpid(),
        "uid": os.geteuid(),
        "version": __version__,
        "project": project_name(settings, directory),
        "settings": settings,
        "directory": directory,
    }


def project_name(settings: str, directory: str) -> str:
    """Return the package of the settings module, as in "shop.settings"; without one, the directory's name."""
    package, _, rest = settings.partition(".")
    return package if rest else os.path.basename(directory.rstrip(os.sep)) or directory
