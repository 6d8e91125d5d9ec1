"""Renewing what serves: new children in place of all the old ones, or none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..children.child import Child
from ..children.children import Children
from ..children.dry_run import DryRunProcess, PlannedServer, SitePlan
from ..conf import setting_path
from ..successor.state import Holdings
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin
from .child import ChildServer
from .sockets import Sockets

if TYPE_CHECKING:
    from ..conf import Settings
    from .base import Server


REQUESTS = {"reload": "graceful", "restart": "restart"}


class Swap(Plugin):
    """Replaces every child server on ``graceful`` by one of the code on disk.

    No new worker answers before all of them are ready; if one fails, the new ones end, and the old
    stay: a `Refusal` says why. ``before_restart`` does the same for the whole site: its own boot is
    tried to the side first. ``say(line)`` shows a developer without LOGGING that a reload is done.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        site: Settings,
        children: Children,
        sockets: Sockets,
        servers: Sequence[Server],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(bus)
        self.site = site
        self.children = children
        self.sockets = sockets
        self.servers = servers
        self.say = say
        self.restarts = True
        """Whether a restart is a matter of this process, and so is tried before it goes."""
        self.under_way: str | None = None
        """What is going on: "reload" or "restart"."""
        self.last_failure: str | None = None
        """Why the last reload or restart failed; None if it did not."""
        self.failed: str | None = None
        """Which it was, "reload" or "restart"; None if it did not fail."""
        self.pidfile: str | None = None
        """The PID file of the next program, once that has been tried."""
        self.restart_began: float | None = None
        """When the restart that is under way began, as `time.monotonic`."""
        self._failures: list[str] = []

    @property
    def child_servers(self) -> list[ChildServer]:
        return [server for server in self.servers if isinstance(server, ChildServer)]

    def subscribe(self) -> None:
        super().subscribe()
        if not self.restarts:
            self.bus.unsubscribe("before_restart", self.before_restart)

    # Reload

    def graceful(self) -> None:
        """Replace the children; servers of this process and the site's listeners keep their code."""
        kept = [repr(server.settings.alias) for server in self.servers if server.in_process]
        self.bus.log(
            f"Reloading{', but for the servers of the site process: ' + ', '.join(kept) if kept else ''}; "
            "what runs in the site process keeps its code until a restart."
        )
        if not self.child_servers:
            self.say("Not reloaded: what serves in the site process keeps its code until a restart.")
        if not self.child_servers or self.bus.state is not self.bus.states.STARTED:
            return
        with self._under_way("reload"), contextlib.ExitStack() as undone:
            began = time.monotonic()
            booted: list[Child] = []
            undone.callback(lambda: self._end(reversed(booted)))
            for server in self.child_servers:
                booted.append(server.boot())
            self._await(booted)
            undone.pop_all()
            self.children.switch(booted)
            self._tell("Reloaded", booted, began)
            self.say(f"Reloaded in {time.monotonic() - began:.2f} s.")

    # Restart

    def before_restart(self) -> None:
        """Try the next program, and boot the children that it is to take over; or refuse it."""
        if self.bus.state is not self.bus.states.STARTED:
            return
        with self._under_way("restart"), contextlib.ExitStack() as undone:
            began = time.monotonic()
            # At the same time as the dry run, as these are most likely the ones that are needed.
            booting = {(server.alias, server.run): server.boot() for server in self.child_servers}
            undone.callback(lambda: self._end(booting.values()))
            plan = self._make_dry_run()
            self._compare_binds(plan.servers)
            undone.callback(self.sockets.drop, self.sockets.add(plan.sockets))
            booted = [
                self._boot(booting, alias, server.run) for alias, server in plan.servers.items() if server.run
            ]
            self._await(booted)
            undone.pop_all()
            self.sockets.keep(plan.sockets)
            self.children.switch(booted)
            self._part_with_others(booted)
            self.pidfile = plan.pidfile
            self.restart_began = began
            self._tell("Restarting", booted, began)

    before_restart.priority = 90  # type: ignore[attr-defined]  # whoever else refuses it does so before

    def _make_dry_run(self) -> SitePlan:
        timeout = self.site.ready_timeout
        addresses = [each.address for each in self.sockets.held()]
        dry_run = DryRunProcess(Holdings(addresses, self._own_pidfile()), self.bus.wake)
        self.children.others.append(dry_run.pid)
        try:
            self.bus.wait_for(lambda: dry_run.has_ended or self.bus.exit_asked, timeout)
            self._go_on_unless_exiting()
            if not dry_run.has_ended:
                raise Refusal(f'its boot took longer than {timeout:g} seconds (WSPBUS["READY_TIMEOUT"]).')
            return dry_run.result()
        finally:
            dry_run.close()
            self.children.others.remove(dry_run.pid)

    def _boot(self, booting: dict[tuple[str, str], Child], alias: str, run: str) -> Child:
        """Return the child of a server, which is booting already unless the server is a new one."""
        if (alias, run) not in booting:
            descriptors = self.sockets.descriptors(alias)
            booting[alias, run] = self.children.boot(alias, run, descriptors)
        return booting[alias, run]

    def _own_pidfile(self) -> str | None:
        return None if self.site.pidfile is None else str(self.site.pidfile)

    def _compare_binds(self, servers: Mapping[str, PlannedServer]) -> None:
        for server in self.servers:
            alias = server.settings.alias
            before = [str(address) for address in server.settings.bind]
            after = servers[alias].bind if alias in servers else before
            if sorted(after) != sorted(before):
                raise Refusal(
                    f"{setting_path('SERVERS', alias, 'BIND')} was {', '.join(before)} and is "
                    f"{', '.join(after)}: a restart keeps the sockets. Stop the site and start it again."
                )

    def _part_with_others(self, booted: Iterable[Child]) -> None:
        """Dismiss the children of servers that the next program does not have, or has in its own process."""
        wanted = list(booted)
        for child in [*self.children.serving.values(), *self.children.booting]:
            if child not in wanted:
                self.children.dismiss(child)

    # Both

    @contextlib.contextmanager
    def _under_way(self, what: str) -> Iterator[None]:
        if self.under_way is not None:  # published by hand: the bus itself has one at a time
            raise Refusal(
                f"A {self.under_way} is under way already: call bus.{REQUESTS[what]}(), which waits."
            )
        self.under_way = what
        self._failures = []
        self.children.swapping = True
        for server in self.child_servers:
            server.respawner.pause()
        try:
            yield
        except Exception as error:
            self.failed = what
            self.last_failure = f"The {what} failed, and the old code serves on: {error or repr(error)}"
            if self.bus.exit_asked:
                self.last_failure = f"The {what} was given up: the site exits."
            if isinstance(error, Refusal):
                reasons = [self.last_failure, *self._failures]
                raise Refusal("\n".join(reasons), status=error.status) from None
            raise
        else:
            self.last_failure = self.failed = None
        finally:
            self.under_way = None
            self.children.swapping = False
            for server in self.child_servers:
                self.bus.defer(server.respawner.resume)

    def _end(self, children: Iterable[Child]) -> None:
        """End children that never serve; what fails then is reported after the reason for it."""
        failures = self.children.end(children)
        if self.bus.exit_asked:
            self.children.failures += failures
        else:
            self._failures += failures

    def _await(self, booted: Sequence[Child]) -> None:
        """Wait until all are ready; a `Refusal` if one does not get so far."""
        timeout = self.site.ready_timeout
        left = timeout - min((child.age for child in booted), default=0)
        self.bus.wait_for(lambda: self._is_decided(booted), max(left, 0))
        self._go_on_unless_exiting()
        not_ready = [child for child in booted if not child.is_ready]
        if not_ready:
            # One that failed, if there is any, tells more than those that are still about it.
            first = max(not_ready, key=lambda child: child.is_settled)
            why = f"the server {first.alias!r} did not start: {first.why_not_ready(timeout)}"
            raise Refusal(why, status=first.progress.status)

    def _go_on_unless_exiting(self) -> None:
        if self.bus.exit_asked:
            raise Refusal("The site exits.")

    def _is_decided(self, booted: Sequence[Child]) -> bool:
        failed = any(child.is_settled and not child.is_ready for child in booted)
        return failed or self.bus.exit_asked or all(child.is_ready for child in booted)

    def _tell(self, what: str, booted: Iterable[Child], began: float) -> None:
        children = ", ".join(f"{each.alias!r} is process {each.pid}" for each in booted)
        self.bus.log(f"{what} after {time.monotonic() - began:.2f} s{': ' if children else '.'}{children}")
