"""The actions of the control socket in the site process: each is a function of its call.

An action runs in a thread of its own, and so may wait. See `control.calls.Call` for its arguments and for the
steps and records that it sends before the result.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import conf
from ..control.calls import Action
from ..control.identity import introduction
from ..successor import start
from .assembly import Assembly
from .observing.jobs import jobs
from .observing.listeners import listeners
from .observing.logs import logs
from .observing.publish import publish
from .observing.requests import requests
from .observing.stacks import stacks
from .observing.status import status
from .scale import scale

Maker = Callable[[Assembly], Action]
"""Makes the action of a site from its parts."""


def hello(site: Assembly) -> Action:
    return lambda call: introduction(conf.settings_module() or "", start.original().directory)


MAKERS: dict[str, Maker] = {
    "hello": hello,
    "ping": lambda site: lambda call: None,
    "status": status,
    "scale": scale,
    "reopen": lambda site: site.log_files.answer,
    "requests": requests,
    "stacks": stacks,
    "listeners": listeners,
    "jobs": jobs,
    "publish": publish,
    "logs": logs,
}
"""The actions by name. Add one here, and write it in a module beside this one."""


def actions(site: Assembly) -> dict[str, Action]:
    """Return the actions of a site by name."""
    return {name: make(site) for name, make in MAKERS.items()}
