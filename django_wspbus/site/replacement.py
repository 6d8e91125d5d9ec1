"""The way in which a restart replaces the process of a site."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

from ..development import debuggers
from ..plugins.guard import Guard
from ..wspbus.plugin import Plugin
from .restart import Restart

if TYPE_CHECKING:
    from .assembly import Assembly


class Replacement:
    """A way to replace the process of a site, and its consequences for the plugins of the site."""

    lends_sockets: bool
    """True if another process holds the sockets as well, and keeps them when this process ends."""
    keeps_children: bool
    """True if the children keep serving meanwhile."""
    watches_files: bool
    """True if the workers ask for a restart when a file changes."""
    time_for_requests: float | None
    """Seconds after which a stop cuts off the requests in flight; None: the share of STOP_TIMEOUT."""

    def plugins(self, site: Assembly) -> list[Plugin]:
        """Make the plugins that a site needs for it."""
        raise NotImplementedError

    def replace(self) -> NoReturn:
        """Replace this process, once the bus has exited for a restart."""
        raise NotImplementedError


class ExecReplacement(Replacement):
    """In production: this process executes its next program, and hands sockets and children over to it."""

    lends_sockets = False
    keeps_children = True
    watches_files = False
    time_for_requests = None

    def plugins(self, site: Assembly) -> list[Plugin]:
        self._restart = Restart(site.bus, site)
        plugins: list[Plugin] = [self._restart]
        if site.is_worker and not debuggers.follows_children():
            exits = [getattr(signal, name) for name, what in site.signals.handlers.items() if what == "exit"]
            plugins.append(Guard(site.bus, exits, site.children.others))
        return plugins

    def replace(self) -> NoReturn:
        self._restart.execute()
