"""The plugin that runs the programs of PROCESSES."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from functools import partial

from ...conf import Settings, is_debug
from ...conf.processes import KEEP
from ...process.messages import Link, Message
from ...process.phases import Phases
from ...process.switchboard import Switchboard
from ...successor.state import ProgramState
from ...wspbus import Bus
from ...wspbus.plugin import Plugin
from ..children import Children
from .instance import Instance, Launcher
from .output import Output
from .program import Program

BEFORE_STOP = 24
"""The priority of the order to stop: together with the servers."""

TIME_TO_KILL = 2.0
"""Seconds for a minder to kill the processes of its program: see `minder`."""


class Programs(Plugin):
    """Starts the programs of PROCESSES once the servers serve, and ends them with the site.

    ``answer(link, message)`` handles the requests of those that have joined; ``note(pid, name, text)`` adds a
    line of their output to the log memory.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        site: Settings,
        children: Children,
        answer: Callable[[Link, Message], None],
        note: Callable[[int, str, str], None],
    ) -> None:
        super().__init__(bus)
        self.site = site
        self.children = children
        self.switchboard: Switchboard = children.switchboard
        self.programs = [
            Program(settings, number, self._launch, self._call_later, bus.log)
            for settings in site.processes.values()
            if settings.runs(debug=is_debug())
            for number in range(1, settings.count + 1)
        ]
        self.output = Output([each.name for each in self.programs], note)
        self._launcher = Launcher(
            *(self.switchboard, answer, children.note_end, children.note_report), self.output.show
        )
        self._leaving: list[Instance] = []
        """Instances of the site before a restart whose entries are no more."""
        children.programs = self.instances

    def instances(self) -> list[Instance]:
        """Return the instances that have not ended; any thread may call this."""
        running = [each.instance for each in self.programs]
        return [*(each for each in running if each is not None), *self._leaving]

    def of(self, alias: str) -> list[Program]:
        """Return the instances of an entry."""
        return [each for each in self.programs if each.settings.alias == alias]

    # Start, reload, stop

    def start(self) -> None:
        for program in self.programs:
            if program.instance is None:
                program.start()
            else:  # of the site before the restart
                program.replace()

    start.priority = 90  # type: ignore[attr-defined]

    def reload(self) -> None:
        """Replace the programs, but those that a reload leaves alone."""
        for program in self.programs:
            if program.settings.graceful != KEEP:
                program.replace()

    def tell_to_stop(self) -> None:
        if self._stay:
            return
        left = max(Phases.of(self.bus, self.site).children - time.monotonic(), 0)
        for program in self.programs:
            program.stop(left)

    def stop(self) -> None:
        """Wait until all have ended; kill those that are left when time is up."""
        self.tell_to_stop()
        if not self._stay:
            self.end_all()

    stop.priority = 26  # type: ignore[attr-defined]

    def end_all(self) -> None:
        """Wait until all have ended, each until its deadline; then kill what is left."""
        for program in self.programs:
            program.is_wanted = False
        found = self.instances()
        latest = max((each.deadline or 0 for each in found), default=0)
        self._await_end(found, latest - time.monotonic() + TIME_TO_KILL)
        for instance in found:
            instance.kill()
        self._await_end(found, TIME_TO_KILL)
        self.look()
        for instance in self.instances():  # its minder does not end
            instance.close()

    def _await_end(self, instances: Iterable[Instance], seconds: float) -> None:
        found = list(instances)
        self.bus.wait_for(lambda: all(each.ended for each in found), max(seconds, 0), despite_exit=True)

    def abort(self) -> None:
        """Kill all of them, from a signal handler or a watchdog."""
        for instance in self.instances():
            instance.kill()

    def close(self) -> None:
        """End what is left, and show the last lines."""
        self.end_all()
        self.output.close()

    @property
    def _stay(self) -> bool:
        return self.children.stay

    def subscribe(self) -> None:
        super().subscribe()
        self.bus.subscribe("stop", self.tell_to_stop, BEFORE_STOP, role=self.role)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe("stop", self.tell_to_stop)

    # Their life

    def _launch(self, program: Program) -> Instance:
        instance = self._launcher.launch(program.settings, program.number, program.name, self._note_change)
        instance.source.is_noted = partial(_has_not_joined, instance)
        return instance

    def _note_change(self) -> None:
        self.bus.wake()
        self.bus.defer(self.look)

    def look(self) -> None:
        """Act upon the end of programs."""
        for program in self.programs:
            program.look()
        for instance in [each for each in self._leaving if each.ended]:
            self._leaving.remove(instance)
            instance.close()

    def _call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self.switchboard.call_later(seconds, lambda: self.bus.defer(function))

    # Over a restart of the site

    def hand_over(self, unanswered: Callable[[Link], list[Message]]) -> list[ProgramState]:
        """Return the states from which the next program can `adopt` them; the switchboard must be paused."""
        self.output.pause()
        return [each.hand_over(unanswered) for each in self.instances() if not each.ended]

    def resume(self) -> None:
        """Go on, as this process executes no other program."""
        self.output.resume()

    def adopt(self, states: Iterable[ProgramState]) -> None:
        """Go on with the programs of the site before a restart; stop those whose entries are no more."""
        wanted = {(each.settings.alias, each.number): each for each in self.programs}
        for state in states:
            program = wanted.pop((state.child.alias, state.number), None)
            name = state.child.alias if program is None else program.name
            instance = self._launcher.adopt(state, name, self._note_change)
            instance.source.is_noted = partial(_has_not_joined, instance)
            if program is not None:
                program.adopt(instance)
            else:
                self._leaving.append(instance)
                instance.send_signal(signal.SIGTERM)  # its minder knows its STOP_TIMEOUT


def _has_not_joined(instance: Instance) -> bool:
    """Return whether the log memory gets the output: a program that has joined keeps records of its own."""
    return not instance.records
