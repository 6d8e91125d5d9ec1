"""The composition root: settings -> a bus with its plugins."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from django.db import connections
from django.utils.module_loading import import_string

from .. import conf
from ..children.children import Children
from ..children.dry_run import PlannedServer, PlannedSocket, SitePlan
from ..children.spawn import run_child
from ..conf import ServerSettings, Settings
from ..conf.addresses import Address
from ..development import debuggers
from ..development.launch import HEALTH, Launch
from ..health.report import Condition
from ..plugins.autoreload import Autoreloader
from ..plugins.daemon import Foreground, Output, daemonize
from ..plugins.guard import Guard
from ..plugins.health import Probes
from ..plugins.pidfile import PIDFile
from ..plugins.privileges import DropPrivileges, identity
from ..plugins.reaper import Reaper
from ..plugins.relaunch import Relaunch
from ..plugins.signals import SignalHandler
from ..process.answering import Answers
from ..process.bus import ProcessBus
from ..process.phases import time_of_site
from ..process.site import LocalSite, NoSite
from ..process.switchboard import Switchboard
from ..project.threads import ADVICE, foreign_threads
from ..servers.base import Server, server_class
from ..servers.child import ChildServer
from ..servers.drain import Drain
from ..servers.sockets import Sockets
from ..servers.swap import Swap
from ..sockets.binding import BACKLOG
from ..sockets.systemd import LISTEN_VARIABLES
from ..successor import start
from ..successor.keeper import Keeper
from ..successor.order import Order, confirm_takeover
from ..successor.state import HeldSocket, SiteState
from ..successor.values import descriptor_of
from ..system.ownership import Owner
from ..system.terminal import Terminal
from ..wspbus import EX_SOFTWARE, ChannelFailures, Refusal
from ..wspbus.plugin import Plugin

SITE_CHANNELS = ("abort", "before_restart", "execv", "autoreload")
"""Published where the process is ended at once; before a restart, to refuse it; just before its exec; on a
change of a file."""

TIME_FOR_REQUESTS = 1
"""Seconds that requests in flight have in development, before a stop cuts them off."""


class SiteProcess:
    """The process that owns a site: it builds the plugins that the settings name, and runs them.

    ``overrides``: what a command line lays over the settings; ``handed_over``: what an earlier program of
    this process has handed over to it, over a restart; ``launch``: what the launcher has told it, in whose
    hands a restart is then.
    """

    def __init__(
        self,
        bus: ProcessBus,
        settings: Settings,
        overrides: Mapping[str, Any] | None = None,
        handed_over: SiteState | None = None,
        launch: Launch | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.overrides = overrides or {}
        self.handed_over = handed_over
        self.launch = launch
        self.say = say
        self.servers: list[Server] = []
        self.plugins: list[Any] = []

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Run the site until it exits; ``started()`` is called once it is STARTED.

        Raises `Refusal` if it does not start: with the reason, and the status to leave with.
        SystemExit(70) if a listener failed while it stopped. A daemon's foreground returns.
        """
        order = Order.take()
        if order is not None:
            run_child(order, self.overrides)
            return
        foreground = None
        self._warn_of_threads()
        if self.settings.daemonize is not None and self.handed_over is None:  # else it has its place already
            connections.close_all()
            files = self.settings.daemonize.stdout, self.settings.daemonize.stderr
            foreground = daemonize(*files, self.owner())
            if foreground is None:
                return
        try:
            self._run(foreground, started)
        except Refusal as refusal:
            if foreground is None:
                raise
            foreground.report(refusal.status, str(refusal))
            raise SystemExit(refusal.status) from None
        finally:
            if foreground is not None:
                foreground.report(EX_SOFTWARE, "The daemon ended during its start.")

    def _run(self, foreground: Foreground | None, started: Callable[[], None]) -> None:
        terminal = Terminal()
        self.build()
        if not faulthandler.is_enabled():  # the guard and the launcher end it by SIGABRT, with its stacks
            faulthandler.enable(2)
        try:
            self.subscribe()
            try:
                # This thread has to start the children, which live no longer than the thread that does.
                # A failure that the dry run could not show must not end the servers that were taken over.
                takes_over = self.handed_over is not None and self.launch is None
                self.bus.start(blocks=True, despite_failures=takes_over)
            except ChannelFailures as failures:
                raise refusal_of(failures) from failures
            self.children.told_at_start = {}
            if self.bus.state is self.bus.states.STARTED:
                started()
                if foreground is not None:
                    foreground.report(0)
            else:
                told = "The site was told to exit while it was starting."
                if foreground is not None:
                    foreground.report(1, told)
                elif not self.bus.execv:  # else the next program starts
                    with contextlib.suppress(OSError):  # nobody reads it
                        sys.stderr.write(told + "\n")
            self.bus.block()
        finally:
            self.dismantle()
            if conf.is_debug():  # a worker may have been ended in a debugger
                terminal.restore()

    def _warn_of_threads(self) -> None:
        """Name the threads of the project that this process does not need, or that end as it forks."""
        names = ", ".join(foreign_threads())
        is_worker = any(server_class(each).in_process for each in self.settings.servers.values())
        if names and self.settings.daemonize is not None and self.handed_over is None:
            self.bus.log(f"Threads end as the site becomes a daemon: {names}. {ADVICE}", level=30)
        elif names and not is_worker:
            self.bus.log(f"Threads in the site process, which serves nothing: {names}. {ADVICE}", level=30)

    def build(self) -> None:
        """Make the plugins."""
        settings = self.settings
        bus = self.bus
        handed_over = self.handed_over or SiteState()
        bus.stop_timeout = time_of_site(settings.stop_timeout)
        self.site = LocalSite(bus, self.status)
        self.switchboard = Switchboard()
        self.answers = Answers(bus, self.site, self.switchboard.post)
        self.sockets = self.make_sockets(handed_over)
        is_developed = self.launch is not None
        self.children = Children(
            bus,
            settings,
            self.switchboard,
            self.answers.answer,
            time_for_requests=TIME_FOR_REQUESTS if is_developed else None,
            survive_restarts=not is_developed,
            watch_files=is_developed,
        )
        self.servers = [self._server(server) for server in settings.servers.values()]
        self.swap = Swap(bus, settings, self.children, self.sockets, self.servers, self.say)
        self.drain = Drain(
            bus,
            settings,
            self.sockets,
            self.children,
            in_process=any(server.in_process for server in self.servers),
        )
        daemonized = settings.daemonize is not None
        self.signals = SignalHandler(
            bus, settings.signals, daemonized=daemonized, handed_over=handed_over.signals
        )
        self.pidfile = self.make_pidfile(handed_over)
        self.handover = Handover(bus, self)
        self.plugins = [
            self.signals,
            Reaper(bus, self.switchboard.call_later, self.children.pids),
            self.sockets,
            self.children,
            *self.servers,
            self.swap,
            self.drain,
            self.handover,
        ]
        if settings.health is not None:
            self.plugins.append(
                Probes(
                    bus,
                    lambda: [each.socket for each in self.sockets.of(HEALTH)],
                    self.probed,
                )
            )
        if settings.daemonize is not None:
            self.plugins.append(Output(bus, settings.daemonize.stdout, settings.daemonize.stderr))
        if self.pidfile is not None:
            self.plugins.append(self.pidfile)
        if (settings.user, settings.group, settings.umask) != (None, None, None):
            self.plugins.append(DropPrivileges(bus, settings.user, settings.group, settings.umask))
        if self.launch is not None:
            self._develop(self.launch)
        elif any(server.in_process for server in self.servers) and not debuggers.follows_children():
            exits = [getattr(signal, name) for name, what in self.signals.handlers.items() if what == "exit"]
            self.plugins.append(Guard(bus, exits, self.children.others))
        self.plugins += [
            make_plugin(bus, plugin.backend, plugin.options, f'WSPBUS["PLUGINS"][{index}]')
            for index, plugin in enumerate(settings.plugins)
        ]

    def make_sockets(self, handed_over: SiteState) -> Sockets:
        return Sockets(
            self.bus,
            self.binds(),
            umask=self.settings.umask,
            owner=self.owner(),
            handed_over=handed_over.sockets,
            is_lent=self.launch is not None,
        )

    def make_pidfile(self, handed_over: SiteState) -> PIDFile | None:
        path = self.settings.pidfile
        if path is None:
            return None
        lock = handed_over.lock if str(path) == handed_over.pidfile else None
        return PIDFile(self.bus, path, owner=self.owner(), descriptor=lock)

    def owner(self) -> Owner:
        return identity(self.settings.user, self.settings.group)

    def listen(self) -> list[HeldSocket]:
        """Bind all sockets for the next program of this process; a `Refusal` if one cannot be had."""
        sockets = self.make_sockets(SiteState())
        try:
            sockets.start()
        except BaseException:
            sockets.close()
            raise
        return sockets.detach()

    def _develop(self, launch: Launch) -> None:
        """Serve on sockets of the launcher, which starts this process again when a file changes."""
        settings = self.settings
        told = {"since": launch.since, "seen": launch.seen, "repeats": launch.repeats}
        is_first, is_worker = launch.launches == 1, any(server.in_process for server in self.servers)
        # Each worker has a reloader; that it is there is said once.
        self.children.told_at_start = {**told, "announces": is_first and not is_worker}
        self.plugins.remove(self.handover)
        self.swap.restarts = False
        autoreload = settings.autoreload or conf.Autoreload(spare=False)
        has_spare = autoreload.spare and not debuggers.follows_children()
        relaunch = Relaunch(
            self.bus,
            launch,
            self.switchboard,
            held=self.sockets.held,
            part=self._part_with_launcher,
            watched={
                "files": list(map(str, autoreload.extra_files)),
                "dirs": [(str(folder), glob) for folder, glob in autoreload.extra_dirs.items()],
                "poll": autoreload.poll,
            },
            preload=autoreload.preload if has_spare else None,
            debug=conf.is_debug(),
            hosts=conf.allowed_hosts(),
            stop_timeout=settings.stop_timeout,
        )
        self.plugins.append(relaunch)
        for server in self.servers:
            server.patience = TIME_FOR_REQUESTS
        if settings.autoreload is None:  # an edit has turned it off, and another may turn it on again
            self.bus.log("AUTORELOAD is off now: start the site again for it to have an effect.", level=30)
        if is_worker:
            self.plugins.append(Autoreloader.of(self.bus, autoreload, announces=is_first, **told))

    def _part_with_launcher(self) -> None:
        """The site exits for good: who still waits for an answer is the matter of this process alone."""
        self.sockets.take_back()

    def binds(self) -> dict[str, tuple[tuple[Address, ...], int]]:
        """Return what the site listens on: holder -> (addresses, backlog)."""
        binds = {alias: (server.bind, _backlog(server)) for alias, server in self.settings.servers.items()}
        if self.settings.health is not None:
            binds[HEALTH] = (self.settings.health,), BACKLOG
        return binds

    def _server(self, settings: ServerSettings) -> Server:
        backend = server_class(settings)
        common = (self.bus, settings, self.settings, lambda: self.sockets.of(settings.alias))
        if issubclass(backend, ChildServer):
            return backend(*common, children=self.children)
        return backend(*common)

    def subscribe(self) -> None:
        """Subscribe the plugins, and take over the state of the program before."""
        bus = self.bus
        for channel in SITE_CHANNELS:
            bus.listeners.setdefault(channel, set())
        bus.roles = {"site", *(["worker"] if any(server.in_process for server in self.servers) else [])}
        bus.site = self.site
        for plugin in self.plugins:
            plugin.subscribe()
        if self.handed_over is not None:
            aliases = [each.alias for each in self.servers if isinstance(each, ChildServer)]
            self.sockets.adopt()
            self.children.adopt(self.handed_over.children, aliases)
            if confirm_takeover():
                bus.request("graceful", lambda error: None)  # the bus logs an error

    def dismantle(self) -> None:
        """Undo `build` and `subscribe`, and end what a restart would have kept."""
        self.drain.end()
        self.sockets.close()
        if self.pidfile is not None:
            self.pidfile.abort()
        for plugin in reversed(self.plugins):
            plugin.unsubscribe()
        self.switchboard.close()
        self.bus.site = NoSite()
        self.bus.roles = frozenset()

    # What is told of it

    def check(self) -> None:
        """Find out whether every server would start; raise what prevents the first that would not."""
        self.build()
        try:
            for server in self.servers:
                server.check()
        finally:
            self.switchboard.close()

    def plan(self) -> SitePlan:
        """Do all of a start that can be undone, and return what the site would be."""
        self.build()
        try:
            for server in self.servers:
                if server.in_process:
                    server.warm_up(server.load())
        finally:
            self.switchboard.close()
        servers = {
            server.settings.alias: PlannedServer(
                server.run if isinstance(server, ChildServer) else None, list(map(str, server.settings.bind))
            )
            for server in self.servers
        }
        sockets = [
            PlannedSocket(holder, str(address), backlog)
            for holder, (addresses, backlog) in self.binds().items()
            for address in addresses
        ]
        pidfile = self.settings.pidfile
        return SitePlan(servers, sockets, None if pidfile is None else str(pidfile))

    def status(self) -> dict[str, Any]:
        """Return what ``bus.site.status()`` tells."""
        condition = self.condition()
        return {
            "pid": os.getpid(),
            "state": self.bus.state.name,
            "condition": condition.state,
            "reason": condition.reason,
            **condition.details,
        }

    def probed(self) -> Condition:
        """Return how the site is, for the probes: the log and `status` alone have messages of exceptions."""
        condition, failed = self.condition(), self.swap.failed
        last_failure = f"The {failed} failed: see the log." if failed else None
        reason = self._failure() if condition.state == "failed" else condition.reason
        return replace(condition, reason=reason, details={**condition.details, "last_failure": last_failure})

    def _failure(self) -> str:
        if self.bus.failed_start:
            return "a start listener of the site failed: see the log"
        failing = [server.settings.alias for server in self.servers if server.failure is not None]
        return "; ".join(f"the server {alias!r} does not serve: see the log" for alias in failing)

    def condition(self) -> Condition:
        """Return how the site is, with all that is known of a failure."""
        bus = self.bus
        details = {
            "servers": {server.settings.alias: server.status() for server in self.servers},
            "last_failure": self.swap.last_failure,
        }
        if bus.exit_asked and not bus.execv:
            return Condition("draining", "the site exits", details)
        if bus.execv:
            return Condition("reloading", "the site restarts", details)
        if bus.state is bus.states.STARTING:
            return Condition("starting", "", details)
        if bus.state is not bus.states.STARTED:
            return Condition("draining", "the site is stopped", details)
        if bus.failed_start:
            return Condition("failed", str(refusal_of(bus.failed_start)), details)
        failures = [failure for server in self.servers if (failure := server.failure) is not None]
        if failures:
            return Condition("failed", "; ".join(failures), details)
        if self.swap.under_way is not None:
            return Condition("reloading", f"a {self.swap.under_way} is under way", details)
        return Condition("ready", "", details)


class Handover(Plugin):
    """Leaves all that outlives a restart to the next program of this process."""

    role = "site"

    def __init__(self, bus: ProcessBus, site: SiteProcess) -> None:
        super().__init__(bus)
        self.site = site

    def execv(self) -> None:
        site = self.site
        signals = site.signals.hand_over()
        children = site.children.hand_over(site.answers.unanswered)
        pidfile = None if site.settings.pidfile is None else str(site.settings.pidfile)
        if site.pidfile is not None and site.swap.pidfile != pidfile:  # the next program has another
            site.pidfile.remove()
            pidfile = None
        state = SiteState(
            sockets=site.sockets.hand_over(),
            children=children,
            signals=signals,
            pidfile=pidfile,
            lock=None if site.pidfile is None else site.pidfile.descriptor,
            restart_began=site.swap.restart_began,
        )
        self._execute(state)

    execv.priority = 100  # type: ignore[attr-defined]

    def _execute(self, state: SiteState) -> NoReturn:
        """Execute the next program, or keep what it is to take over until that succeeds."""
        site, invocation = self.site, start.original()
        ((name, variable),) = state.hand_over().items()
        environment = {name: os.environ[name] for name in LISTEN_VARIABLES if name in os.environ}
        keep = {
            "variable": variable,
            "descriptors": [descriptor_of(name, {name: variable}), *state.descriptors()],
            "children": [each.pid for each in state.children],
            "files": _files(state),
            "ready_timeout": site.settings.ready_timeout,
            "stop_timeout": site.settings.stop_timeout,
        }
        descriptor = start.write_start(invocation, keep=keep, environment=environment)
        self.bus.log(f"Re-spawning {' '.join(invocation.words)}")
        Keeper(descriptor).execute()


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


def _files(state: SiteState) -> list[tuple[str, int, int]]:
    """Return (path, device, inode) of the files that a site removes when it exits."""
    sockets = ((each.address, each.inode) for each in state.sockets)
    files = [(os.path.abspath(path.removeprefix("unix:")), *inode) for path, inode in sockets if inode]
    if state.pidfile is not None:
        with contextlib.suppress(OSError):
            status = os.lstat(state.pidfile)
            files.append((os.path.abspath(state.pidfile), status.st_dev, status.st_ino))
    return files


def _backlog(settings: ServerSettings) -> int:
    backlog = settings.options.get("backlog", BACKLOG)
    return backlog if isinstance(backlog, int) else BACKLOG
