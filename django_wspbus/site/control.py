"""The actions of the control socket in the site process: each is a function of its call.

An action runs in a thread of its own, and so may wait. See `control.calls.Call` for its arguments and for the
steps and records that it sends before the result.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .. import __version__, conf
from ..control.calls import Action, Call
from ..successor import start
from .assembly import Assembly
from .observing.listeners import listeners
from .observing.logs import logs
from .observing.publish import publish
from .observing.requests import requests
from .observing.stacks import stacks
from .scale import scale

Maker = Callable[[Assembly], Action]
"""Makes the action of a site from its parts."""


def hello(site: Assembly) -> Action:
    def answer(call: Call) -> dict[str, Any]:
        """Return the facts by which a client tells sites apart."""
        return {"pid": os.getpid(), "uid": os.geteuid(), "version": __version__, **identity()}

    return answer


def status(site: Assembly) -> Action:
    return lambda call: site.condition.status()


MAKERS: dict[str, Maker] = {
    "hello": hello,
    "status": status,
    "scale": scale,
    "reopen": lambda site: site.log_files.answer,
    "requests": requests,
    "stacks": stacks,
    "listeners": listeners,
    "publish": publish,
    "logs": logs,
}
"""The actions by name. Add one here, and write it in a module beside this one."""


def actions(site: Assembly) -> dict[str, Action]:
    """Return the actions of a site by name."""
    return {name: make(site) for name, make in MAKERS.items()}


def identity() -> dict[str, str]:
    """Return the name of the project, its settings module and its directory."""
    settings = conf.settings_module() or ""
    directory = start.original().directory
    return {"project": project_name(settings, directory), "settings": settings, "directory": directory}


def project_name(settings: str, directory: str) -> str:
    """Return the package of the settings module, as in "shop.settings"; without one, the directory's name."""
    package, _, rest = settings.partition(".")
    return package if rest else os.path.basename(directory.rstrip(os.sep)) or directory
