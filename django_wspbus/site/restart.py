"""A restart in production: this process executes its next program, once a dry run has shown that it boots."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

from ..children.child import Child
from ..children.dry_run import NO_START, DryRunProcess, PlannedServer, SitePlan
from ..conf import setting_path
from ..sockets.systemd import LISTEN_VARIABLES
from ..successor import start
from ..successor.keeper import Keeper, Kept
from ..successor.state import Holdings, SiteState
from ..successor.values import descriptor_of
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin
from .assembly import Assembly


class Restart(Plugin):
    """Tries the next program before a restart, and hands the sockets and children of the site over to it.

    A `Refusal` on ``before_restart`` says why the next program would not serve; then all stays as it is.
    """

    role = "site"

    def __init__(self, bus: Bus, site: Assembly) -> None:
        super().__init__(bus)
        self.site = site
        self.ready_timeout = site.settings.ready_timeout
        self._plan: SitePlan | None = None
        self._began: float | None = None

    # Before

    def before_restart(self) -> None:
        """Make a dry run, and boot the children that the next program takes over."""
        if self.bus.state is not self.bus.states.STARTED:
            return
        swap, sockets = self.site.swap, self.site.sockets
        with swap.begin("restart"), contextlib.ExitStack() as undone:
            began = time.monotonic()
            # At the same time as the dry run, as these are most likely the ones that are needed.
            booting = {(server.alias, server.run): swap.boot(server) for server in swap.child_servers}
            undone.callback(lambda: swap.end(booting.values()))
            swap.steps.show("making a dry run of the site process")
            plan = self._make_dry_run()
            self._compare_binds(plan.servers)
            undone.callback(sockets.drop, sockets.add(plan.sockets))
            booted = [
                self._boot(booting, alias, server.run) for alias, server in plan.servers.items() if server.run
            ]
            swap.await_ready(booted)
            undone.pop_all()
            sockets.keep(plan.sockets)
            swap.switch(booted)
            self._dismiss_others(booted)
            self._plan, self._began = plan, began
            swap.log_result("Restarting", booted, began)

    before_restart.priority = 90  # type: ignore[attr-defined]  # other listeners that refuse it run before

    def _make_dry_run(self) -> SitePlan:
        held = Holdings(self.site.sockets.addresses(), self._own_pidfile)
        dry_run = DryRunProcess(held, self.bus.wake)
        self.site.children.others.append(dry_run.pid)
        try:
            self.bus.wait_for(lambda: dry_run.has_ended or self.bus.exit_asked, self.ready_timeout)
            self.site.swap.refuse_if_exiting()
            if not dry_run.has_ended:
                limit = f'{self.ready_timeout:g} seconds (WSPBUS["READY_TIMEOUT"])'
                raise Refusal(f"{NO_START}: its boot took longer than {limit}.")
            return dry_run.result()
        finally:
            dry_run.close()
            self.site.children.others.remove(dry_run.pid)

    def _boot(self, booting: dict[tuple[str, str], Child], alias: str, run: str) -> Child:
        """Return the child of a server, which is booting already unless the server is a new one."""
        if (alias, run) not in booting:
            descriptors = self.site.sockets.descriptors(alias)
            booting[alias, run] = self.site.children.boot(alias, run, descriptors)
        return booting[alias, run]

    @property
    def _own_pidfile(self) -> str | None:
        pidfile = self.site.settings.pidfile
        return None if pidfile is None else str(pidfile)

    def _compare_binds(self, servers: Mapping[str, PlannedServer]) -> None:
        for server in self.site.servers:
            alias = server.settings.alias
            before = [str(address) for address in server.settings.bind]
            after = servers[alias].bind if alias in servers else before
            if sorted(after) != sorted(before):
                raise Refusal(
                    f"{setting_path('SERVERS', alias, 'BIND')} was {', '.join(before)} and is "
                    f"{', '.join(after)}: a restart keeps the sockets. Stop the site and start it again."
                )

    def _dismiss_others(self, booted: Iterable[Child]) -> None:
        """Dismiss the children of servers that the next program does not have, or has in its own process."""
        children, wanted = self.site.children, list(booted)
        for child in [*children.serving.values(), *children.booting]:
            if child not in wanted:
                children.dismiss(child, is_replaced=True)

    # After the bus has exited

    def execute(self) -> NoReturn:
        """Execute the next program, and keep sockets and children until it has taken them over."""
        try:
            self._execute()
        except BaseException:  # this program goes on, and has to hear its children
            self.site.answers.resume()
            self.site.switchboard.resume()
            self.site.programs.resume()
            raise

    def _execute(self) -> NoReturn:
        state, invocation = self._hand_over(), start.original()
        ((name, variable),) = state.hand_over().items()
        environment = {name: os.environ[name] for name in LISTEN_VARIABLES if name in os.environ}
        kept = Kept(
            variable=variable,
            descriptors=[descriptor_of(name, {name: variable}), *state.descriptors()],
            children=[*(each.pid for each in state.children), *(each.child.pid for each in state.programs)],
            files=_files(state),
            ready_timeout=self.ready_timeout,
            stop_timeout=self.site.settings.stop_timeout,
            clients=[] if state.control is None else [each.descriptor for each in state.control.clients],
        )
        descriptor = start.write_start(invocation, kept=kept, environment=environment)
        self.bus.log(f"Re-spawning {' '.join(invocation.words)}")
        Keeper(descriptor).execute()

    def _hand_over(self) -> SiteState:
        site, pidfile = self.site, self._own_pidfile
        signals = site.signals.hand_over()
        # The next program gets what comes from now on.
        site.switchboard.pause()
        site.fleet.stop_receiving()
        # What the engine is asked for meanwhile is done and answered; the next program does what is left.
        leader, orders, fleet = site.leader.hand_over(), site.orders.hand_over(), site.fleet.hand_over()
        site.answers.pause()
        children = site.children.hand_over(site.answers.unanswered)
        programs = site.programs.hand_over(site.answers.unanswered)
        planned = None if self._plan is None else self._plan.pidfile
        if site.pidfile is not None and planned != pidfile:  # the next program has another
            site.pidfile.remove()
            pidfile = None
        return SiteState(
            sockets=site.sockets.hand_over(),
            children=children,
            programs=programs,
            signals=signals,
            pidfile=pidfile,
            lock=None if site.pidfile is None else site.pidfile.descriptor,
            restart_began=self._began,
            log=site.log_store.hand_over(),
            control=site.control.hand_over(),
            leader=leader,
            orders=orders,
            fleet=fleet,
        )


def _files(state: SiteState) -> list[tuple[str, int, int]]:
    """Return (path, device, inode) of the files that a site removes when it exits."""
    sockets = ((each.address, each.inode) for each in state.sockets)
    files = [(os.path.abspath(path.removeprefix("unix:")), *inode) for path, inode in sockets if inode]
    if state.pidfile is not None:
        with contextlib.suppress(OSError):
            status = os.lstat(state.pidfile)
            files.append((os.path.abspath(state.pidfile), status.st_dev, status.st_ino))
    return files
