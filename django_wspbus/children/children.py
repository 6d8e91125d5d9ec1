"""The child processes of a site: those that serve, and those that are leaving."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..process.messages import Link, Message
from ..process.phases import OF_A_BOOT, Phases
from ..process.switchboard import Switchboard
from ..successor.inheritance import ChildState
from ..wspbus import EX_SOFTWARE, Bus, Refusal
from ..wspbus.plugin import Plugin
from .generation import Generation
from .spawn import spawn_server

if TYPE_CHECKING:
    from ..conf import Settings

LEEWAY = 1
"""Seconds that the stop listeners of a worker have where requests have only ``patience``."""


class Children(Plugin):
    """Boots children, releases them to serve, and ends them.

    ``answer(link, message)`` is given what they ask of the site.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        site: Settings,
        switchboard: Switchboard,
        answer: Callable[[Link, Message], None],
    ) -> None:
        super().__init__(bus)
        self.site = site
        self.switchboard = switchboard
        self.answer = answer
        self.serving: dict[str, Generation] = {}
        self.booting: list[Generation] = []
        self.leaving: list[Generation] = []
        self.patience: float | None = None
        """The most seconds that requests may take at a stop; None: what STOP_TIMEOUT gives them."""
        self.outlive_restarts = True
        self.told: dict[str, Any] = {}
        """What the children are told besides."""
        self.told_at_start: dict[str, Any] = {}
        """And what those are told that start together with the site, of that start."""
        self.failures: list[str] = []
        """What failed in children that ended before, and is to be reported at the exit."""
        self._awaited: list[Generation] = []
        self.swapping = False
        """Whether all are about to be replaced, so that one that has ended need not be."""
        self.others: list[int] = []
        """PIDs of what else of ours runs to the side."""
        self.looks: list[Callable[[], None]] = [self._let_go]
        """What is called in the main thread when there is news of a child."""

    def everyone(self) -> list[Generation]:
        return [*self.booting, *self.serving.values(), *self.leaving]

    def pids(self) -> list[int]:
        return [*self.others, *(generation.pid for generation in self.everyone())]

    def boot(self, alias: str, run: str, descriptors: Sequence[int], patch: str | None = None) -> Generation:
        """Start a child of a server, which does not serve yet; see `spawn.spawn_server`."""
        told = {**self.told, **self.told_at_start}
        process, pair, report = spawn_server(alias, run, descriptors, told, patch)
        generation = Generation(alias, process, pair, self.switchboard, self.answer, self._tell, report)
        self.booting.append(generation)
        generation.listen()
        return generation

    def switch(self, generations: Iterable[Generation]) -> None:
        """Release all of these, and end those before them."""
        generations = list(generations)
        before = [self.serving.get(generation.alias) for generation in generations]
        for generation in generations:
            generation.serve()
            self.booting.remove(generation)
            self.serving[generation.alias] = generation
        for old in before:
            if old is not None:
                self.dismiss(old)

    def dismiss(self, generation: Generation) -> None:
        """Tell a child to answer what is in flight and exit; it is killed when its time is up."""
        if generation in self.leaving:
            return
        phases = self.phases()
        if not generation.is_serving:
            phases = phases.hurried(OF_A_BOOT / 2, OF_A_BOOT / 2)
        if generation in self.booting:
            self.booting.remove(generation)
        if self.serving.get(generation.alias) is generation:
            del self.serving[generation.alias]
        self.leaving.append(generation)
        generation.terminate(phases)
        self.switchboard.call_later(max(phases.children - time.monotonic(), 0), self._tell)

    def end(self, generations: Iterable[Generation]) -> list[str]:
        """End children that never served, and wait until they have ended; return what failed meanwhile."""
        ended = list(generations)
        for generation in ended:
            self.dismiss(generation)
        self._awaited += ended  # their failures are for the caller, and not only for the log
        try:
            self._await_end(ended)
        finally:
            self._awaited = [each for each in self._awaited if each not in ended]
        return [
            failed for generation in ended if generation in self.leaving for failed in self._close(generation)
        ]

    def _await_end(self, generations: Iterable[Generation]) -> None:
        """Wait until children that are leaving have ended, each until its deadline."""
        ended = list(generations)
        latest = max((generation.deadline or 0 for generation in ended), default=0)
        self.bus.wait_for(
            lambda: all(each.is_gone or each.is_overdue for each in ended),
            max(latest - time.monotonic(), 0),
            despite_exit=True,
        )

    def _tell(self) -> None:
        self.bus.wake()
        for look in self.looks:
            self.bus.defer(look)

    def _let_go(self) -> None:
        """Close those that have left or have to."""
        if self.bus.deadline is not None:  # an exit waits for all of them together: see stop()
            return
        for generation in [each for each in self.leaving if each not in self._awaited]:
            if generation.is_overdue or generation.is_gone:
                for failed in self._close(generation):
                    self.bus.log(failed, level=40)

    def _close(self, generation: Generation) -> list[str]:
        """Kill what is left of a child; return what has failed, or was cut off, on its way out."""
        failed = []
        if not generation.is_gone and generation.served_from is not None:
            failed.append(generation.remains())
        generation.close()
        self.leaving.remove(generation)
        if self.patience is None:
            failed += generation.unanswered()
        return [f"The server {generation.alias!r}: {each}" for each in (*failed, *generation.failed_stops)]

    def stop(self) -> None:
        """Tell all to exit, and end what is left when time is up; over a restart they stay."""
        if not self.stay and (failed := self.leave()):
            raise Refusal("\n".join(failed), status=EX_SOFTWARE)

    stop.priority = 25  # type: ignore[attr-defined]

    def leave(self) -> list[str]:
        """Tell all to exit within the time for it; return what has failed meanwhile."""
        for generation in self.everyone():
            self.dismiss(generation)
        self._await_end(self.leaving)
        before, self.failures = self.failures, []
        return before + [failed for generation in list(self.leaving) for failed in self._close(generation)]

    def abort(self) -> None:
        """Kill all of them, from a signal handler or a watchdog."""
        for generation in self.everyone():
            generation.kill()

    @property
    def stay(self) -> bool:
        """Whether they serve on while this process goes over to its next program."""
        return self.bus.execv and self.outlive_restarts

    def phases(self) -> Phases:
        """Return the phases of children that are told to exit now."""
        phases = Phases.of(self.bus, self.site)
        return phases if self.patience is None else phases.hurried(self.patience, LEEWAY)

    # Over a restart of the site

    def hand_over(self, unanswered: Callable[[Link], list[Message]]) -> list[ChildState]:
        """Return what `adopt` needs to know of each."""
        self.switchboard.pause()
        return [generation.hand_over(unanswered) for generation in [*self.serving.values(), *self.leaving]]

    def adopt(self, states: Iterable[ChildState], aliases: Iterable[str]) -> None:
        """Go on with the children of the program before; end those whose servers are no more."""
        aliases = set(aliases)
        for state in states:
            generation = Generation.adopt(state, self.switchboard, self.answer, self._tell)
            if state.left is not None:
                self.leaving.append(generation)
                self.switchboard.call_later(state.left, self._tell)
            else:
                self.serving[generation.alias] = generation
                if generation.alias not in aliases:
                    self.dismiss(generation)
            generation.resume()
