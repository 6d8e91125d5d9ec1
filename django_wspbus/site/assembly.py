"""The composition root: settings -> the plugins of a site."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from django.utils.module_loading import import_string

from ..children.children import Children
from ..children.programs.programs import Programs
from ..conf import ServerSettings, Settings
from ..conf.addresses import Address
from ..control.calls import Actions
from ..development.launch import HEALTH
from ..plugins.control import ControlSocket
from ..plugins.health import Probes
from ..plugins.pidfile import PIDFile
from ..plugins.privileges import DropPrivileges, identity
from ..plugins.reaper import Reaper
from ..plugins.signals import SignalHandler
from ..plugins.systemd import Systemd
from ..process.answering import Answers
from ..process.bus import ProcessBus
from ..process.site import LocalSite
from ..process.switchboard import Switchboard
from ..servers.base import Server, server_class
from ..servers.child import ChildServer
from ..servers.drain import Drain
from ..servers.sockets import Sockets
from ..servers.swap import Swap
from ..sockets.binding import BACKLOG
from ..successor.notification import ServiceManager
from ..successor.start import TYPED
from ..successor.state import SiteState
from ..wspbus import Refusal
from ..wspbus.plugin import Plugin
from .condition import SiteCondition
from .fleet import SiteFleet
from .fleet_orders import FleetOrders
from .leader import LeaderDesk
from .log_files import LogFiles
from .observing.log_store import LogStore
from .policy import Policy
from .scaling import Scaling


class Assembly:
    """The parts of a site process.

    ``handed_over``: the state that an earlier program of the process has handed over; ``policy``: the effects
    of a restart on them; ``say(line)`` shows a developer without LOGGING that a reload is done.
    """

    def __init__(
        self,
        bus: ProcessBus,
        settings: Settings,
        handed_over: SiteState,
        policy: Policy,
        say: Callable[[str], None],
    ) -> None:
        settings = replace(settings, time_for_requests=policy.time_for_requests)
        self.bus = bus
        self.settings = settings
        self.switchboard = Switchboard()
        self.site = LocalSite(bus, self._status)
        self.answers = Answers(bus, self.site, self.switchboard.post)
        self.sockets = make_sockets(bus, settings, handed_over, is_lent=policy.lends_sockets)
        self.children = Children(
            bus,
            settings,
            self.switchboard,
            self.answers.answer,
            survive_restarts=policy.keeps_children,
            watch_files=policy.watches_files,
        )
        self.servers = [self._make_server(server) for server in settings.servers.values()]
        self.fleet = SiteFleet(bus, settings, self.children, self.answers, handed_over.fleet)
        self.leader = LeaderDesk(
            *(bus, settings, self.children, self.answers, self.fleet), handed_over=handed_over.leader
        )
        self.swap = Swap(bus, settings, self.children, [*self.servers, self.leader.server], say)
        self.drain = Drain(bus, settings, self.sockets, self.children, in_process=self.is_worker)
        self.condition = SiteCondition(bus, self.servers, self.swap)
        for observers in (self.swap.observers, self.children.observers):
            observers.append(self.condition.note)
        self.log_store = LogStore(self.children, handed_over.log)
        self.programs = Programs(bus, settings, self.children, self.answers.answer, self.log_store.note)
        self.swap.switched += [self.programs.reload, self.fleet.note_change]
        self.scaling = Scaling(bus, self.servers)
        self.log_files = LogFiles(bus, self.children, [*self.servers, self.leader.server], settings.daemonize)
        self.signals = SignalHandler(
            bus,
            settings.signals,
            daemonized=settings.daemonize is not None,
            handed_over=handed_over.signals,
        )
        self.pidfile = make_pidfile(bus, settings, handed_over)
        self.actions = Actions({})
        """The actions of the control socket, which `control.actions` makes."""
        self.control = ControlSocket(
            bus,
            False if policy.lends_sockets else settings.control,  # the launcher has one of its own
            self.actions,
            owner=identity(settings.user, settings.group),
            handed_over=handed_over.control,
        )
        self.orders = FleetOrders(
            *(bus, self.fleet.member, self.control.calls.begin),
            restarts=policy.keeps_children,
            handed_over=handed_over.orders,
        )
        self.plugins = [
            self.signals,
            Reaper(bus, self.switchboard.call_later, self.children.pids),
            self.sockets,
            self.fleet,
            self.children,
            *self.servers,
            self.leader.server,
            self.programs,
            self.swap,
            self.drain,
            self.control,
            self.log_files,
            self.scaling,
            *self._optional_plugins(),
        ]
        manager = ServiceManager(TYPED.environment)
        self.systemd = None
        if manager.is_there:
            self.systemd = self._make_systemd(manager, is_restarted=bool(handed_over.restart_began))
            self.plugins.append(self.systemd)

    @property
    def is_worker(self) -> bool:
        """True if a server serves in the site process."""
        return any(server.in_process for server in self.servers)

    @property
    def planned(self) -> list[Server]:
        """The servers that this site starts, and the leader process if there is work for it."""
        return [*self.servers, *([self.leader.server] if self.leader.server.is_wanted else [])]

    def _status(self) -> dict[str, Any]:
        return {**self.condition.status(), "leader": self.leader.status()}

    def _make_server(self, settings: ServerSettings) -> Server:
        backend = server_class(settings)
        common = (self.bus, settings, self.settings, lambda: self.sockets.of(settings.alias))
        if issubclass(backend, ChildServer):
            return backend(*common, children=self.children)
        return backend(*common)

    def _make_systemd(self, manager: ServiceManager, *, is_restarted: bool) -> Systemd:
        is_daemon = self.settings.daemonize is not None
        systemd = Systemd(
            self.bus,
            manager,
            self.condition.in_one_line,
            self.switchboard.call_later,
            watchdog=manager.watchdog(None if is_daemon else os.getpid()),
            time_to_start=self.settings.ready_timeout * len(self.servers),
            time_to_stop=self.settings.stop_timeout,
            replaces=is_restarted or is_daemon,
        )
        for observers in (self.swap.observers, self.children.observers):
            observers.append(systemd.look)
        return systemd

    def _optional_plugins(self) -> list[Plugin]:
        bus, settings = self.bus, self.settings
        plugins: list[Plugin] = []
        if settings.health is not None:
            sockets = self.sockets
            plugins.append(
                Probes(bus, lambda: [each.socket for each in sockets.of(HEALTH)], self.condition.for_probes)
            )
        if self.pidfile is not None:
            plugins.append(self.pidfile)
        if (settings.user, settings.group, settings.umask) != (None, None, None):
            plugins.append(DropPrivileges(bus, settings.user, settings.group, settings.umask))
        return plugins


def make_sockets(bus: ProcessBus, settings: Settings, handed_over: SiteState, *, is_lent: bool) -> Sockets:
    return Sockets(
        bus,
        binds(settings),
        umask=settings.umask,
        owner=identity(settings.user, settings.group),
        handed_over=handed_over.sockets,
        is_lent=is_lent,
    )


def binds(settings: Settings) -> dict[str, tuple[tuple[Address, ...], int]]:
    """Return the addresses of the site: holder -> (addresses, backlog)."""
    found = {alias: (server.bind, _backlog(server)) for alias, server in settings.servers.items()}
    if settings.health is not None:
        found[HEALTH] = (settings.health,), BACKLOG
    return found


def _backlog(settings: ServerSettings) -> int:
    backlog = settings.options.get("backlog", BACKLOG)
    return backlog if isinstance(backlog, int) else BACKLOG


def make_pidfile(bus: ProcessBus, settings: Settings, handed_over: SiteState) -> PIDFile | None:
    path = settings.pidfile
    if path is None:
        return None
    lock = handed_over.lock if str(path) == handed_over.pidfile else None
    return PIDFile(bus, path, owner=identity(settings.user, settings.group), descriptor=lock)


def make_plugins(bus: ProcessBus, settings: Settings) -> list[Any]:
    """Make the plugins of PLUGINS."""
    return [
        make_plugin(bus, plugin.backend, plugin.options, f'WSPBUS["PLUGINS"][{index}]')
        for index, plugin in enumerate(settings.plugins)
    ]


def make_plugin(bus: ProcessBus, backend: str, options: Mapping[str, Any], path: str) -> Any:
    """Make a plugin of the project's own; its listeners run in the site process, unless it says otherwise."""
    try:
        plugin = import_string(backend)(bus, **options)
    except (TypeError, ValueError) as error:
        raise Refusal(f"{path}: {backend} does not take these OPTIONS: {error}.") from error
    if isinstance(plugin, Plugin) and plugin.role is None:
        plugin.role = "site"
    return plugin
