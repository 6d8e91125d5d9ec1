"""The process that owns a site, from its start to its end."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from collections.abc import Callable

from django.db import connections

from .. import conf
from ..children.dry_run import PlannedServer, PlannedSocket, SitePlan
from ..conf import Settings
from ..control.hanging import write_stacks_on_signal
from ..plugins.control import ControlSocket
from ..plugins.daemon import Foreground, daemonize
from ..plugins.privileges import identity
from ..process.bus import ProcessBus
from ..process.phases import time_of_site
from ..process.site import NoSite
from ..project.threads import ADVICE, foreign_threads
from ..servers.base import server_class
from ..servers.child import ChildServer
from ..successor.order import confirm_takeover
from ..successor.state import ControlState, SiteState, SocketState
from ..system.terminal import Terminal
from ..wspbus import EX_SOFTWARE, ChannelFailures, Refusal
from .assembly import Assembly, binds, make_plugins, make_sockets
from .channels import SITE_CHANNELS
from .condition import refusal_of
from .control import actions
from .deploying import Deploys
from .operations import Operations
from .replacement import ExecReplacement, Replacement


class SiteProcess:
    """The process that owns a site: it makes the plugins that the settings name, and runs them.

    ``handed_over``: the state that an earlier program of this process has handed over; ``replacement``: how a
    restart replaces the process.
    """

    def __init__(
        self,
        bus: ProcessBus,
        settings: Settings,
        handed_over: SiteState | None = None,
        replacement: Replacement | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.handed_over = handed_over
        self.replacement = replacement or ExecReplacement()
        self.say = say

    def run(self, started: Callable[[Assembly], None]) -> None:
        """Run the site until it exits; ``started(parts)`` is called once it is STARTED.

        Raises `Refusal` if it does not start: with the reason, and the status to exit with.
        SystemExit(70) if a listener failed while it stopped. A daemon's foreground returns.
        """
        foreground = None
        self._warn_of_threads()
        if self.settings.daemonize is not None and self.handed_over is None:  # a restarted daemon stays one
            connections.close_all()
            files = self.settings.daemonize.stdout, self.settings.daemonize.stderr
            foreground = daemonize(*files, identity(self.settings.user, self.settings.group))
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

    def _run(self, foreground: Foreground | None, started: Callable[[Assembly], None]) -> None:
        terminal = Terminal()
        site = self.build()
        site.log_store.begin()
        if not faulthandler.is_enabled():  # the guard and the launcher end it by SIGABRT, with its stacks
            faulthandler.enable(2)
        write_stacks_on_signal()
        try:
            self._subscribe(site)
            try:
                # This thread has to start the children, which live no longer than the thread that does.
                # A failure that the dry run could not show must not end the servers that were taken over.
                takes_over = self.handed_over is not None and self.replacement.policy.keeps_children
                self.bus.start(blocks=True, despite_failures=takes_over)
            except ChannelFailures as failures:
                raise refusal_of(failures) from failures
            if self.bus.state is self.bus.states.STARTED:
                site.condition.note()
                if site.systemd is not None:
                    site.systemd.look()
                if self.handed_over is not None and self.handed_over.restart_began is not None:
                    site.swap.note_end("restart", self.handed_over.restart_began)
                started(site)
                self._operations.report_start()
                site.orders.report_start()
                site.fleet.note_change()
                if foreground is not None:
                    foreground.report(0)
            else:
                self._report_early_exit(foreground)
            self.bus.block(replace=self.replacement.replace)
        finally:
            self._dismantle(site)
            if conf.is_debug():  # a worker may have been ended in a debugger
                terminal.restore()

    def _report_early_exit(self, foreground: Foreground | None) -> None:
        message = "The site was told to exit while it was starting."
        if foreground is not None:
            foreground.report(1, message)
        elif not self.bus.execv:  # else the next program starts
            with contextlib.suppress(OSError):  # the output may be closed
                sys.stderr.write(message + "\n")

    def _warn_of_threads(self) -> None:
        """Name the threads of the project that this process does not need, or that end as it forks."""
        names = ", ".join(foreign_threads())
        is_worker = any(server_class(each).in_process for each in self.settings.servers.values())
        if names and self.settings.daemonize is not None and self.handed_over is None:
            self.bus.log(f"Threads end as the site becomes a daemon: {names}. {ADVICE}", level=30)
        elif names and not is_worker:
            self.bus.log(f"Threads in the site process, which serves nothing: {names}. {ADVICE}", level=30)

    def build(self) -> Assembly:
        """Make the parts of the site."""
        self.bus.stop_timeout = time_of_site(self.settings.stop_timeout)
        handed_over = self.handed_over or SiteState()
        site = Assembly(self.bus, self.settings, handed_over, self.replacement.policy, self.say)
        clients = [] if handed_over.control is None else handed_over.control.clients
        self._operations = Operations(site, clients)
        site.plugins.append(self._operations)
        deploys = Deploys(site, self._operations)
        site.actions.table |= {**actions(site), **self._operations.actions, **deploys.actions}
        site.plugins += [*self.replacement.plugins(site), *make_plugins(self.bus, self.settings)]
        return site

    def _subscribe(self, site: Assembly) -> None:
        """Subscribe the plugins, and take over the state of the program before."""
        bus = self.bus
        for channel in SITE_CHANNELS:
            bus.listeners.setdefault(channel, set())
        bus.roles = {"site", *(["worker"] if site.is_worker else [])}
        bus.site = site.site
        for plugin in site.plugins:
            plugin.subscribe()
        if self.handed_over is not None:
            aliases = [each.alias for each in site.swap.child_servers]
            site.sockets.adopt()
            site.children.adopt(self.handed_over.children, aliases)
            site.programs.adopt(self.handed_over.programs)
            if confirm_takeover():
                bus.request("graceful", lambda error: None)  # the bus logs an error

    def _dismantle(self, site: Assembly) -> None:
        """Undo `_subscribe`, and end the children and sockets that a restart would have kept."""
        site.drain.end()
        site.programs.close()
        site.sockets.close()
        if site.pidfile is not None:
            site.pidfile.abort()
        for plugin in reversed(site.plugins):
            plugin.unsubscribe()
        site.switchboard.close()
        site.log_store.end()
        self.bus.site = NoSite()
        self.bus.roles = frozenset()

    # Without serving

    def listen(self) -> list[SocketState]:
        """Bind all sockets for another program; a `Refusal` if one cannot be bound."""
        sockets = make_sockets(self.bus, self.settings, SiteState(), is_lent=False)
        try:
            sockets.start()
        except BaseException:
            sockets.close()
            raise
        return sockets.detach()

    def listen_for_control(self) -> ControlState | bool:
        """Bind the path of CONTROL for another program; return CONTROL if it is no path."""
        control = self.settings.control
        if isinstance(control, bool):
            return control
        plugin = ControlSocket(self.bus, control, lambda call: None)
        plugin.bind()
        return plugin.hand_over() or False

    def check(self) -> None:
        """Check whether every server would start; raise the error of the first that would not."""
        site = self.build()
        try:
            for server in site.servers:
                server.check()
        finally:
            site.switchboard.close()

    def plan(self) -> SitePlan:
        """Do the parts of a start that can be undone, and return the plan of the site."""
        site = self.build()
        try:
            for server in site.servers:
                if server.in_process:
                    server.warm_up(server.load())
        finally:
            site.switchboard.close()
        servers = {
            server.settings.alias: PlannedServer(
                server.run if isinstance(server, ChildServer) else None, list(map(str, server.settings.bind))
            )
            for server in site.planned
        }
        sockets = [
            PlannedSocket(holder, str(address), backlog)
            for holder, (addresses, backlog) in binds(self.settings).items()
            for address in addresses
        ]
        pidfile = self.settings.pidfile
        return SitePlan(servers, sockets, None if pidfile is None else str(pidfile))
