"""The replacement of a site process under the launcher."""

from __future__ import annotations

from typing import NoReturn

from .. import conf
from ..development import debuggers
from ..development.launch import Launch
from ..plugins.autoreload import Autoreloader
from ..plugins.relaunch import Relaunch
from ..wspbus.plugin import Plugin
from .assembly import Assembly
from .policy import Policy
from .replacement import Replacement


class LauncherReplacement(Replacement):
    """In development: this process ends, and the launcher, which holds the sockets, starts another."""

    policy = Policy(lends_sockets=True, keeps_children=False, watches_files=True, time_for_requests=1)

    def __init__(self, launch: Launch) -> None:
        self.launch = launch

    def plugins(self, site: Assembly) -> list[Plugin]:
        settings = site.settings
        autoreload = settings.autoreload or conf.Autoreload(spare=False)
        has_spare = autoreload.spare and not debuggers.follows_children()
        self._relaunch = Relaunch(
            site.bus,
            self.launch,
            site.switchboard,
            sockets=site.sockets.states,
            take_back=site.sockets.take_back,
            order_workers=site.children.order_workers,
            preload=autoreload.preload if has_spare else None,
            debug=conf.is_debug(),
            hosts=conf.allowed_hosts(),
            stop_timeout=settings.stop_timeout,
            control=site.control.calls.begin,
            waiting=site.control.take_waiting,
        )
        if settings.autoreload is None:  # an edit has turned it off, and another may turn it on again
            site.bus.log("AUTORELOAD is off now: start the site again for it to have an effect.", level=30)
        plugins: list[Plugin] = [self._relaunch]
        if site.is_worker:
            plugins.append(Autoreloader.of(site.bus, settings))
        return plugins

    def replace(self) -> NoReturn:
        self._relaunch.replace()
