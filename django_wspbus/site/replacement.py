"""The way in which a restart replaces the process of a site."""

from __future__ import annotations

import signal
from typing import NoReturn

from ..development import debuggers
from ..plugins.guard import Guard
from ..wspbus.plugin import Plugin
from .assembly import Assembly
from .policy import Policy
from .restart import Restart


class Replacement:
    """A way to replace the process of a site."""

    policy: Policy

    def plugins(self, site: Assembly) -> list[Plugin]:
        """Make the plugins that a site needs for it."""
        raise NotImplementedError

    def replace(self) -> NoReturn:
        """Replace this process, once the bus has exited for a restart."""
        raise NotImplementedError


class ExecReplacement(Replacement):
    """In production: this process executes its next program, and hands sockets and children over to it."""

    policy = Policy(lends_sockets=False, keeps_children=True, watches_files=False)

    def plugins(self, site: Assembly) -> list[Plugin]:
        self._restart = Restart(site.bus, site)
        plugins: list[Plugin] = [self._restart]
        if site.is_worker and not debuggers.follows_children():
            exits = [getattr(signal, name) for name, what in site.signals.handlers.items() if what == "exit"]
            plugins.append(Guard(site.bus, exits, site.children.others))
        return plugins

    def replace(self) -> NoReturn:
        self._restart.execute()
