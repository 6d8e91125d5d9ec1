"""A reload: new children replace all the old ones, or none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..children.child import Child
from ..children.children import Children
from ..children.titles import title_of
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin
from .child import ChildServer
from .steps import Steps

if TYPE_CHECKING:
    from ..conf import Settings
    from .base import Server


NOTHING_TO_RELOAD = (
    "Nothing reloaded: all servers run in the site process, which keeps its code until a restart."
)

METHODS = {"reload": "graceful", "restart": "restart"}
"""The method of the bus for each operation of a `Swap`."""


@dataclass(frozen=True, slots=True)
class Operation:
    """The last reload or restart. ``operation``: "reload" or "restart"; ``error``: None if it succeeded."""

    operation: str
    ended: float
    """The time of `time.monotonic`."""
    seconds: float
    error: str | None = None


class Swap(Plugin):
    """Replaces every child server on ``graceful`` by one of the code on disk.

    No new worker answers before all of them are ready. If one fails, the new ones end, and the old ones keep
    serving: a `Refusal` says why. ``say(line)`` shows a developer without LOGGING that a reload is done.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        site: Settings,
        children: Children,
        servers: Sequence[Server],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(bus)
        self.site = site
        self.children = children
        self.servers = servers
        self.say = say
        self.under_way: str | None = None
        """The operation that is under way: "reload", "restart" or None."""
        self.last_failure: str | None = None
        """The reason why the last reload or restart failed; None if it did not."""
        self.failed: str | None = None
        """The last operation, "reload" or "restart", if it failed; else None."""
        self.last: Operation | None = None
        """The last operation that has ended."""
        self.steps = Steps()
        self.observers: list[Callable[[], None]] = []
        """Functions that are called when an operation begins, and deferred to when it has ended."""
        self.switched: list[Callable[[], None]] = []
        """Functions that are called when a reload has replaced all servers."""
        self._failures: list[str] = []

    @property
    def child_servers(self) -> list[ChildServer]:
        """The servers that have a child."""
        return [server for server in self.servers if isinstance(server, ChildServer) and server.is_wanted]

    def graceful(self) -> None:
        """Replace the children; servers of this process and the site's listeners keep their code."""
        if not self.child_servers:
            self.bus.log(NOTHING_TO_RELOAD)
            self.say(NOTHING_TO_RELOAD)
            self._call_switched()
            return
        kept = "".join(f", with {server.settings.alias!r}," for server in self.servers if server.in_process)
        self.bus.log(f"Reloading the workers. The site process{kept} keeps its code until a restart.")
        if self.bus.state is self.bus.states.STARTED:
            self.replace_children(self.child_servers, is_whole=True)
            self._call_switched()

    def _call_switched(self) -> None:
        for function in self.switched:
            function()

    def replace_children(self, servers: Iterable[ChildServer], *, is_whole: bool = False) -> None:
        """Replace the children of these servers; a `Refusal` if one of the new ones does not become ready.

        ``is_whole``: the new code may need a child where the old code needed none, and the reverse.
        """
        with self.begin("reload"), contextlib.ExitStack() as undone:
            began = time.monotonic()
            booted: list[Child] = []
            undone.callback(lambda: self.end(reversed(booted)))
            for server in servers:
                booted.append(self.boot(server))
            self.await_ready(booted)
            needless = self._complete(booted) if is_whole else []
            undone.pop_all()
            self.switch(booted)
            for child in needless:
                self.children.dismiss(child, is_replaced=True)
            self.log_result("Reloaded", booted, began)
            self.say(f"Reloaded in {time.monotonic() - began:.2f} s.")

    def _complete(self, booted: list[Child]) -> list[Child]:
        """Boot what the new code needs besides, and end what it does not; return what serves in vain then."""
        needless = []
        for server in [each for each in self.servers if isinstance(each, ChildServer)]:
            own = next((child for child in booted if child.alias == server.alias), None)
            if server.is_needed_by(booted) and own is None:
                booted.append(self.boot(server))
                self.await_ready(booted[-1:])
            elif not server.is_needed_by(booted):
                needless += [child for child in (server.current,) if child is not None]
                if own is not None:
                    booted.remove(own)
                    self.end([own])
        return needless

    def boot(self, server: ChildServer) -> Child:
        self.steps.show(f"booting {server.alias!r}")
        return server.boot()

    def switch(self, booted: Sequence[Child]) -> None:
        """Release the children to serve, and dismiss those that they replace."""
        self.steps.show("switching")
        self.children.switch(booted)
        self.steps.show(f"draining ({counted(sum(each.in_flight for each in self.children.draining))})")

    # The steps of a reload, and of a restart

    @contextlib.contextmanager
    def begin(self, what: str) -> Iterator[None]:
        """Note that a "reload" or "restart" is under way, and how it ends; a `Refusal` if one is already."""
        if self.under_way is not None:  # published by hand: the bus itself has one at a time
            raise Refusal(
                f"A {self.under_way} is under way already: call bus.{METHODS[what]}(), which waits."
            )
        self.under_way, began = what, time.monotonic()
        failure: str | None = None
        try:
            self._failures = []
            self.children.swapping = True
            for server in self.child_servers:
                server.respawner.pause()
            for observer in self.observers:
                observer()
            yield
        except Exception as error:
            self._note_failure(what, error)
            failure = self.last_failure
            if isinstance(error, Refusal):
                reasons = [str(self.last_failure), *self._failures]
                raise Refusal("\n".join(reasons), status=error.status) from None
            raise
        except BaseException as error:  # the process is about to end
            failure = f"The {what} was interrupted: {error!r}"
            raise
        else:
            self.last_failure = self.failed = None
        finally:
            self.note_end(what, began, failure)
            self.under_way = None
            self.steps.forget()
            self.children.swapping = False
            for server in self.child_servers:
                self.bus.defer(server.respawner.resume)
            for observer in self.observers:
                self.bus.defer(observer)

    def note_end(self, what: str, began: float, error: str | None = None) -> None:
        """Note the end of an operation; ``began``: a time of `time.monotonic`."""
        now = time.monotonic()
        self.last = Operation(what, now, now - began, error)

    def _note_failure(self, what: str, error: Exception) -> None:
        self.failed = what
        self.last_failure = f"The {what} failed; the old code keeps serving: {error or repr(error)}"
        if self.bus.exit_asked:
            self.last_failure = f"The {what} was given up: the site exits."

    def end(self, children: Iterable[Child]) -> None:
        """End children that never serve; failures of their exits are reported after the reason for it."""
        failures = self.children.end(children)
        if self.bus.exit_asked:
            self.children.failures += failures
        else:
            self._failures += failures

    def await_ready(self, booted: Sequence[Child]) -> None:
        """Wait until all children are ready; a `Refusal` if one of them does not become ready."""
        timeout = self.site.ready_timeout
        left = timeout - min((child.age for child in booted), default=0)
        self.bus.wait_for(lambda: self._is_decided(booted), max(left, 0))
        self.refuse_if_exiting()
        not_ready = [child for child in booted if not child.is_ready]
        if not_ready:
            # A child that failed says more than those that are still booting.
            first = max(not_ready, key=lambda child: child.is_settled)
            why = f"{title_of(first.alias)} did not start: {first.why_not_ready(timeout)}"
            raise Refusal(why, status=first.progress.status)

    def _is_decided(self, booted: Sequence[Child]) -> bool:
        failed = any(child.is_settled and not child.is_ready for child in booted)
        is_decided = failed or self.bus.exit_asked or all(child.is_ready for child in booted)
        self._show_ready(booted)  # after the decision, as a worker may become ready at any moment
        return is_decided

    def _show_ready(self, booted: Sequence[Child]) -> None:
        counts = [(child.alias, len(child.progress.ready), child.progress.expected) for child in booted]
        loaded = [(alias, ready, expected) for alias, ready, expected in counts if expected is not None]
        if loaded and len(booted) == 1:
            self.steps.show(f"{loaded[0][1]} of {loaded[0][2]} ready")
        elif loaded:
            each = (f"{alias!r}: {ready} of {expected} ready" for alias, ready, expected in loaded)
            self.steps.show(", ".join(each))

    def refuse_if_exiting(self) -> None:
        if self.bus.exit_asked:
            raise Refusal("The site exits.")

    def log_result(self, what: str, booted: Iterable[Child], began: float) -> None:
        """Log the operation, its duration, and the processes that serve now."""
        children = ", ".join(f"{each.alias!r} is process {each.pid}" for each in booted)
        self.bus.log(f"{what} after {time.monotonic() - began:.2f} s{': ' if children else '.'}{children}")


def counted(requests: int) -> str:
    """Return a number of requests in words."""
    return f"{requests} request{'' if requests == 1 else 's'}"
