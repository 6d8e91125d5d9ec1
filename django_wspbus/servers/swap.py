"""Renewing what serves: new children in place of all the old ones, or none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..conf import setting_path
from ..inheritance import Inheritance
from ..plugin import Plugin
from ..wspbus import Bus, Refusal
from .child import ChildServer
from .children import Children
from .generation import Generation
from .sockets import Sockets
from .trial import Trial, own_command

if TYPE_CHECKING:
    from ..conf import Settings
    from .base import Server

Boot = Callable[[], Generation]


class Swap(Plugin):
    """On ``graceful`` every child server is replaced by one of the code on disk, through a gate.

    No new worker answers before all of them are ready; if one fails, the new ones go, and the old
    stay: a `Refusal` says why. ``before_restart`` does the same for the whole site: its own boot is
    tried to the side first.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        site: Settings,
        children: Children,
        sockets: Sockets,
        servers: Sequence[Server],
    ) -> None:
        super().__init__(bus)
        self.site = site
        self.children = children
        self.sockets = sockets
        self.servers = servers
        self.under_way: str | None = None
        """What is going on: "reload" or "restart"."""
        self.last_failure: str | None = None
        """Why the last reload or restart failed; None if it did not."""
        self.pidfile: str | None = None
        """The PID file of the next program, once that has been tried."""

    @property
    def child_servers(self) -> list[ChildServer]:
        return [server for server in self.servers if isinstance(server, ChildServer)]

    # Reload

    def graceful(self) -> None:
        """Replace the children; servers of this process and the site's listeners keep their code."""
        kept = [repr(server.settings.alias) for server in self.servers if server.in_process]
        self.bus.log(
            f"Reloading{', but for the servers of the site process: ' + ', '.join(kept) if kept else ''}; "
            "what runs in the site process keeps its code until a restart."
        )
        if self.child_servers:
            with self._under_way("reload"):
                began = time.monotonic()
                booted = self._boot({server.alias: server.boot for server in self.child_servers})
                self.children.switch(booted)
                self._tell("Reloaded", booted, began)

    # Restart

    def before_restart(self) -> None:
        """Try the next program, and boot the children that it is to take over; or refuse it."""
        with self._under_way("restart"):
            began = time.monotonic()
            report = self._try_program()
            servers: Mapping[str, Any] = report["servers"]
            self._compare_binds(servers)
            with self.sockets.adding(report["sockets"]):
                runs = {alias: told["run"] for alias, told in servers.items() if told["run"]}
                booted = self._boot({alias: self._boot_of(alias, run) for alias, run in runs.items()})
            self.children.switch(booted)
            self._part_with_others({generation.alias for generation in booted})
            self.pidfile = report["pidfile"]
            self._tell("Restarting", booted, began)

    def _try_program(self) -> dict[str, Any]:
        timeout = self.site.ready_timeout
        held = Inheritance(sockets=self.sockets.held(), pidfile=self._own_pidfile())
        trial = Trial(own_command(), held, self.bus.wake)
        self.children.others.append(trial.pid)
        try:
            self.bus.wait_for(lambda: trial.has_ended or self.bus.exit_asked, timeout)
            self._go_on_unless_exiting()
            if not trial.has_ended:
                raise Refusal(f'its boot took longer than {timeout:g} seconds (WSPBUS["READY_TIMEOUT"]).')
            return trial.result()
        finally:
            trial.close()
            self.children.others.remove(trial.pid)

    def _own_pidfile(self) -> str | None:
        return None if self.site.pidfile is None else str(self.site.pidfile)

    def _compare_binds(self, servers: Mapping[str, Any]) -> None:
        for server in self.servers:
            alias = server.settings.alias
            before = [str(address) for address in server.settings.bind]
            after = servers[alias]["bind"] if alias in servers else before
            if sorted(after) != sorted(before):
                raise Refusal(
                    f"{setting_path('SERVERS', alias, 'BIND')} was {', '.join(before)} and is "
                    f"{', '.join(after)}: a restart keeps the sockets. Stop the site and start it again."
                )

    def _boot_of(self, alias: str, run: str) -> Boot:
        return lambda: self.children.boot(alias, run, self.sockets.descriptors(alias))

    def _part_with_others(self, aliases: Iterable[str]) -> None:
        for alias in set(self.children.serving) - set(aliases):
            self.children.dismiss(self.children.serving[alias])

    # Both

    @contextmanager
    def _under_way(self, what: str) -> Iterator[None]:
        self.under_way = what
        self.children.swapping = True
        for server in self.child_servers:
            server.make_way()
        try:
            yield
        except Exception as error:
            self.last_failure = f"The {what} failed, and the old code serves on: {error or repr(error)}"
            if self.bus.exit_asked:
                self.last_failure = f"The {what} was given up: the site exits."
            if isinstance(error, Refusal):
                raise Refusal(self.last_failure, status=error.status) from None
            raise
        else:
            self.last_failure = None
        finally:
            self.under_way = None
            self.children.swapping = False
            for server in self.child_servers:
                self.bus.defer(server.go_on)

    def _boot(self, boots: Mapping[str, Boot]) -> list[Generation]:
        """Boot children, and return them once all are ready; a `Refusal` if one is not."""
        booted: list[Generation] = []
        timeout = self.site.ready_timeout
        try:
            for boot in boots.values():
                booted.append(boot())
            self.bus.wait_for(lambda: self._is_decided(booted), timeout)
            self._go_on_unless_exiting()
            late = [generation for generation in booted if not generation.is_ready]
            late.sort(key=lambda generation: not generation.is_settled)  # those that failed, before the rest
            for generation in late[:1]:
                why = generation.why_not_ready(timeout)
                raise Refusal(
                    f"the server {generation.alias!r} did not start: {why}", status=generation.status
                )
        except BaseException:
            self.children.end(reversed(booted))
            raise
        return booted

    def _go_on_unless_exiting(self) -> None:
        if self.bus.exit_asked:
            raise Refusal("The site exits.")

    def _is_decided(self, booted: Iterable[Generation]) -> bool:
        booted = list(booted)
        failed = any(generation.is_settled and not generation.is_ready for generation in booted)
        return failed or self.bus.exit_asked or all(generation.is_ready for generation in booted)

    def _tell(self, what: str, booted: Iterable[Generation], began: float) -> None:
        children = ", ".join(f"{each.alias!r} is process {each.pid}" for each in booted)
        self.bus.log(f"{what} after {time.monotonic() - began:.2f} s{': ' if children else '.'}{children}")
