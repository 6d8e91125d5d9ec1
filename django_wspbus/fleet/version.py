"""The version of the code that a process has loaded, as the list of members shows it."""

from __future__ import annotations

import os

from ..conf import FleetSettings
from ..wspbus.ending import STARTUP_DIRECTORY


def version_of_code(settings: FleetSettings | None) -> str:
    """Return FLEET["VERSION"], or the path of the release: the directory in which this process was started.

    The path has no links, so that it shows the release to which a link like ``current`` led at that moment.
    """
    if settings is not None and settings.version is not None:
        return settings.version
    return os.path.realpath(STARTUP_DIRECTORY or os.curdir)
