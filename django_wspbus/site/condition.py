"""The condition of a site, as its probes and ``bus.site.status()`` show it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..health.report import Condition
from ..servers.child import ChildServer
from ..wspbus import EX_SOFTWARE, ChannelFailures, Refusal

if TYPE_CHECKING:
    from ..process.bus import ProcessBus
    from ..servers.base import Server
    from ..servers.swap import Swap


SATURATED_AFTER = 5.0
"""Seconds for which every thread of a server has to be busy until the site counts as saturated."""


class SiteCondition:
    """Asks the parts of a site for its condition."""

    def __init__(self, bus: ProcessBus, servers: Sequence[Server], swap: Swap) -> None:
        self._bus = bus
        self._servers = servers
        self._swap = swap
        self._began = self._changed = time.monotonic()
        self._noted = "starting"

    @property
    def uptime(self) -> float:
        """Seconds since this program of the site process began."""
        return time.monotonic() - self._began

    def note(self) -> None:
        """Note the condition if it has changed. It is called whenever something has changed in the site."""
        state, _ = self._state_and_reason()
        if state != self._noted:
            self._noted, self._changed = state, time.monotonic()

    def seconds_since_change(self, state: str) -> float:
        """Return the seconds for which the site has been in its condition, as far as it was noted."""
        self.note()
        if state == "saturated":
            return max(server.saturated_for or 0.0 for server in self._servers)
        return time.monotonic() - self._changed

    def status(self) -> dict[str, Any]:
        """Return the result of ``bus.site.status()``."""
        condition = self.in_full()
        return {
            "pid": os.getpid(),
            "state": self._bus.state.name,
            "condition": condition.state,
            "reason": condition.reason,
            **condition.details,
        }

    def for_probes(self) -> Condition:
        """Return the condition without messages of exceptions, which belong in the log and in `status`."""
        condition, failed = self.in_full(), self._swap.failed
        last_failure = f"The {failed} failed: see the log." if failed else None
        reason = self._failure() if condition.state == "failed" else condition.reason
        return replace(condition, reason=reason, details={**condition.details, "last_failure": last_failure})

    def in_one_line(self) -> Condition:
        """Return the condition with a reason of one line, and without details."""
        state, reason = self._state_and_reason()
        error = self._bus.exit_under_way.start_error
        if isinstance(error, ChannelFailures):
            state, reason = "failed", str(refusal_of(error))
        elif state == "ready" and (saturated := self._saturated()):
            state, reason = "saturated", saturated
        elif state == "ready":
            reason = ". ".join(filter(None, [self._workers(), self._swap.last_failure]))
        return Condition(state, first_line(reason))

    def _workers(self) -> str:
        children = [server.current for server in self._servers if isinstance(server, ChildServer)]
        progresses = [child.progress for child in children if child is not None]
        wanted = sum(each.expected or 0 for each in progresses)
        ready = sum(min(len(each.ready), each.expected or 0) for each in progresses)  # more while one retires
        return f"{ready} of {wanted} workers" if wanted else ""

    def _failure(self) -> str:
        if self._bus.failed_start:
            return "a start listener of the site failed: see the log"
        failing = [server.settings.alias for server in self._servers if server.failure is not None]
        return "; ".join(f"the server {alias!r} does not serve: see the log" for alias in failing)

    def in_full(self) -> Condition:
        """Return the condition, with the full reason of a failure."""
        details = {
            "servers": {server.settings.alias: server.status() for server in self._servers},
            "last_failure": self._swap.last_failure,
        }
        state, reason = self._state_and_reason()
        if state == "ready" and (saturated := self._saturated()):
            state, reason = "saturated", saturated
        return Condition(state, reason, details)

    def _saturated(self) -> str:
        """Return which servers have had no free thread for a while; "" if none."""
        found = [(server.settings.alias, server.saturated_for) for server in self._servers]
        return "; ".join(
            f"every thread of the server {alias!r} has been busy for {seconds:.0f} s"
            for alias, seconds in found
            if seconds is not None and seconds >= SATURATED_AFTER
        )

    def _state_and_reason(self) -> tuple[Any, str]:
        bus = self._bus
        failures = [failure for server in self._servers if (failure := server.failure) is not None]
        if bus.exit_asked and not bus.execv:
            return "draining", "the site exits"
        if bus.execv:
            return "reloading", "the site restarts"
        if bus.state is bus.states.STARTING:
            return "starting", ""
        if bus.state is not bus.states.STARTED:
            return "draining", "the site is stopped"
        if bus.failed_start:
            return "failed", str(refusal_of(bus.failed_start))
        if failures:
            return "failed", "; ".join(failures)
        if self._swap.under_way is not None:
            return "reloading", f"a {self._swap.under_way} is under way"
        if stuck := [(server.settings.alias, server.trouble) for server in self._servers if server.trouble]:
            return "stuck", "; ".join(f"the server {alias!r}: {trouble}" for alias, trouble in stuck)
        return "ready", ""


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def refusal_of(failures: ChannelFailures) -> Refusal:
    """Return why a start failed: in the words of the plugins, or as the failure of a listener, status 70."""
    errors = failures.get_instances()
    refusals = [error for error in errors if isinstance(error, Refusal)]
    if len(refusals) == len(errors):
        return Refusal("\n".join(map(str, refusals)), status=max(each.status for each in refusals))
    unexpected = next(error for error in errors if not isinstance(error, Refusal))
    return Refusal(f"A start listener failed: {unexpected!r}", status=EX_SOFTWARE)
