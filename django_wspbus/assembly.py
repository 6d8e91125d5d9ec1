"""The composition root: settings -> a bus with its plugins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from django.db import connections
from django.utils.module_loading import import_string

from . import machine
from .conf import ServerSettings, Settings
from .link import Switchboard
from .plugin import Plugin
from .plugins.daemon import Foreground, daemonize
from .plugins.pidfile import PIDFile
from .plugins.privileges import DropPrivileges, identity
from .plugins.signals import SignalHandler
from .process import ProcessBus
from .servers.base import Server
from .servers.child import ChildServer
from .servers.sockets import BACKLOG, Sockets
from .site import LocalSite, NoSite
from .wspbus import EX_SOFTWARE, ChannelFailures, Refusal

DAEMON = "DJANGO_WSPBUS_DAEMON"
"""The environment variable by which a daemon that restarts knows that it is one: its PID."""


class SiteProcess:
    """The process that owns a site: it builds the plugins that the settings name, and runs them."""

    def __init__(
        self, bus: ProcessBus, settings: Settings, overrides: Mapping[str, Any] | None = None
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.overrides = overrides or {}
        self.servers: list[Server] = []
        self.plugins: list[Any] = []
        self._switchboard: Switchboard | None = None

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Run the site until it exits; ``started()`` is called once it is STARTED.

        Raises `Refusal` if it does not start: with the reason, and the status to leave with.
        SystemExit(70) if a listener failed while it stopped. A daemon's foreground returns.
        """
        foreground = None
        if self.settings.daemonize is not None and os.environ.pop(DAEMON, None) != str(os.getpid()):
            connections.close_all()
            foreground = daemonize(self.settings.daemonize.stdout, self.settings.daemonize.stderr)
            if foreground is None:
                return
        try:
            self._run(foreground, started)
        except Refusal as refusal:
            if foreground is None:
                raise
            foreground.tell(refusal.status, str(refusal))
            raise SystemExit(refusal.status) from None
        finally:
            if foreground is not None:
                foreground.tell(EX_SOFTWARE, "The daemon ended during its start.")

    def _run(self, foreground: Foreground | None, started: Callable[[], None]) -> None:
        self.build()
        try:
            try:
                self.bus.start()
            except ChannelFailures as failures:
                raise refusal_of(failures) from failures
            if self.bus.state is self.bus.states.STARTED:
                started()
                if foreground is not None:
                    foreground.tell(0)
            else:
                told = "The site was told to exit while it was starting."
                if foreground is not None:
                    foreground.tell(1, told)
                else:
                    sys.stderr.write(told + "\n")
            self.bus.block()
        finally:
            self.dismantle()

    def build(self) -> None:
        """Make the plugins and subscribe them."""
        settings = self.settings
        bus = self.bus
        bus.listeners.setdefault("abort", set())  # published where a process is ended at once
        bus.stop_timeout = settings.stop_timeout
        self.site = LocalSite(bus, self.status)
        uid, gid, _ = identity(settings.user, settings.group)
        sockets = Sockets(
            bus,
            {alias: (server.bind, _backlog(server)) for alias, server in settings.servers.items()},
            umask=settings.umask,
            owner=(uid, gid),
        )
        self.servers = [self._server(server, sockets) for server in settings.servers.values()]
        daemonized = settings.daemonize is not None
        self.plugins = [SignalHandler(bus, settings.signals, daemonized=daemonized), sockets, *self.servers]
        if daemonized:
            self.plugins.append(StayDaemon(bus))
        if settings.pidfile is not None:
            self.plugins.append(PIDFile(bus, settings.pidfile))
        if (settings.user, settings.group, settings.umask) != (None, None, None):
            self.plugins.append(DropPrivileges(bus, settings.user, settings.group, settings.umask))
        self.plugins += [
            make_plugin(bus, plugin.backend, plugin.options, f'WSPBUS["PLUGINS"][{index}]')
            for index, plugin in enumerate(settings.plugins)
        ]
        bus.roles = {"site", *(["worker"] if any(server.in_process for server in self.servers) else [])}
        bus.site = self.site
        for plugin in self.plugins:
            plugin.subscribe()

    def _server(self, settings: ServerSettings, sockets: Sockets) -> Server:
        backend = machine.server_class(settings)
        alias = settings.alias
        common = (self.bus, settings, self.settings, lambda: sockets.bound.get(alias, []))
        if not issubclass(backend, ChildServer):
            return backend(*common)
        return backend(
            *common,
            switchboard=self.switchboard,
            answer=self.site.answer,
            overrides=self.overrides,
        )

    @property
    def switchboard(self) -> Switchboard:
        """The thread that hears the children; there is none without children."""
        if self._switchboard is None:
            self._switchboard = Switchboard()
        return self._switchboard

    def dismantle(self) -> None:
        """Undo `build`."""
        for plugin in reversed(self.plugins):
            plugin.unsubscribe()
        if self._switchboard is not None:
            self._switchboard.close()
            self._switchboard = None
        self.bus.site = NoSite()
        self.bus.roles = frozenset()

    def status(self) -> dict[str, Any]:
        """Return what ``bus.site.status()`` tells."""
        return {
            "pid": os.getpid(),
            "state": self.bus.state.name,
            "servers": {server.settings.alias: server.status() for server in self.servers},
        }


class StayDaemon(Plugin):
    """Tells the program that a restart executes that it is in the background already."""

    role = "site"

    def exit(self) -> None:
        if self.bus.execv:
            os.environ[DAEMON] = str(os.getpid())


def make_plugin(bus: ProcessBus, backend: str, options: Mapping[str, Any], path: str) -> Any:
    """Make a plugin of the project's own; its listeners run in the site process, unless it says otherwise."""
    try:
        plugin = import_string(backend)(bus, **options)
    except (TypeError, ValueError) as error:
        raise Refusal(f"{path}: {backend} does not take these OPTIONS: {error}.") from error
    if isinstance(plugin, Plugin) and plugin.role is None:
        plugin.role = "site"
    return plugin


def refusal_of(failures: ChannelFailures) -> Refusal:
    """Return why a start failed: in the words of the plugins, or as the failure of a listener, status 70."""
    errors = failures.get_instances()
    refusals = [error for error in errors if isinstance(error, Refusal)]
    if len(refusals) == len(errors):
        return Refusal("\n".join(map(str, refusals)), status=max(each.status for each in refusals))
    unexpected = next(error for error in errors if not isinstance(error, Refusal))
    return Refusal(f"A start listener failed: {unexpected!r}", status=EX_SOFTWARE)


def _backlog(settings: ServerSettings) -> int:
    backlog = settings.options.get("backlog", BACKLOG)
    return backlog if isinstance(backlog, int) else BACKLOG
