"""Starting the child of a server again when it ends."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..children.child import Child
from ..children.children import Children
from ..children.titles import capitalized, title_of
from ..conf import LEADER_ALIAS
from ..system.backoff import FIRST, HEALTHY_LIFETIME, MOST, Backoff
from ..wspbus import Bus, Refusal

DELAY_AFTER_SIGNAL = 0.5
"""Seconds before a child that SIGTERM has ended is started again: systemd signals all processes at once."""


class Respawner:
    """Replaces the child of a server that has ended, at growing intervals if its successors fail as well.

    ``boot()`` starts a child, which has to be ready within ``ready_timeout`` seconds. All methods are for the
    main thread. ``wanted()`` says if the server is to have a child at all.
    """

    def __init__(
        self,
        bus: Bus,
        alias: str,
        children: Children,
        boot: Callable[[], Child],
        ready_timeout: float,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.bus = bus
        self.alias = alias
        self.children = children
        self.boot = boot
        self.ready_timeout = ready_timeout
        self.wanted = wanted
        self.is_active = False
        """True from the end of a start to the next stop: meanwhile the server has to have a child."""
        self.trouble: str | None = None
        """The reason why no child serves, or why the last one ended, until its successor has answered."""
        self._successor: Child | None = None
        self._backoff = Backoff()
        self._said: str | None = None

    @property
    def _name(self) -> str:
        return capitalized(title_of(self.alias))

    @property
    def _may_respawn(self) -> bool:
        return self.is_active and not self.bus.exit_asked and not self.children.swapping

    @property
    def _current(self) -> Child | None:
        return self.children.serving.get(self.alias)

    def reset(self) -> None:
        """Forget earlier failures, as the server starts anew."""
        self.trouble = self._successor = self._said = None

    def retry(self, reason: str) -> None:
        """Start the child later, because the start of the server has failed."""
        self.trouble = reason
        self.is_active = True
        self._respawn_in(FIRST)

    def look(self) -> None:
        """Start the child again if it has ended, and release its successor once that is ready."""
        if not self._may_respawn:
            return
        if self._successor is not None:
            self._look_at_successor(self._successor)
        elif (current := self._current) is not None:
            if current.ended:
                self._replace(current)
            else:
                self._look_at(current)

    def pause(self) -> None:
        """End a successor with the old code: new code is about to boot."""
        successor, self._successor = self._successor, None
        if successor is not None:
            self.children.dismiss(successor)

    def resume(self) -> None:
        """Respawn again, after a `pause`."""
        self._respawn()
        self.look()

    def _look_at(self, current: Child) -> None:
        progress = current.progress
        while progress.failed_stops:  # of a worker that another has replaced since
            self.bus.log(f"{self._name}: {progress.failed_stops.pop(0)}", level=40)
        while progress.failed_workers:
            reason = progress.failed_workers.pop()
            self._say(f"A new worker of {title_of(self.alias)} did not start: {reason}")
        if self.trouble is not None and progress.has_answered:
            self.trouble = self._said = None
            works = "leads" if self.alias == LEADER_ALIAS else "answers"
            self.bus.log(f"{self._name} {works} again, process {current.pid}.")

    def _replace(self, ended: Child) -> None:
        how = ended.how_ended()
        worked = ended.progress.has_answered or ended.lifetime > HEALTHY_LIFETIME
        # Its workers may still be at work on their last requests.
        self.children.dismiss(ended, is_replaced=True)
        wait = self._backoff.note(worked=worked)
        self.trouble = f"it {how}"
        if worked:
            self._said = None
        self._say(f"{self._name} {how}; restarting it.")
        self._respawn_in(max(wait, DELAY_AFTER_SIGNAL) if ended.ended_cleanly else wait)

    def _look_at_successor(self, successor: Child) -> None:
        timeout = self.ready_timeout
        if successor.is_ready:
            self._successor = None
            self.children.switch([successor])
        elif successor.is_settled or successor.age > timeout:
            self._successor = None
            why = successor.why_not_ready(timeout)
            self.children.dismiss(successor)
            self._fail(why)

    def _fail(self, why: str) -> None:
        self.trouble = why
        is_leader, waits = self.alias == LEADER_ALIAS, "; new connections wait"
        self._say(
            f"{self._name} did not restart: {why}\n"
            f"The site tries again at intervals of up to {MOST:g} seconds{'' if is_leader else waits}."
        )
        self._respawn_in(max(self._backoff.note(worked=False), FIRST))

    def _respawn_in(self, seconds: float) -> None:
        if seconds:
            self._call_later(seconds, self._respawn)
        else:
            self._respawn()

    def _respawn(self) -> None:
        if self._may_respawn and self._current is None and self._successor is None and self.wanted():
            try:
                self._successor = self.boot()
            except Refusal as refusal:  # a deployment has removed the interpreter, say, and may restore it
                self._fail(str(refusal))
                return
            self._call_later(self.ready_timeout + 0.01, self.look)

    def _call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function in the main thread."""
        self.children.switchboard.call_later(seconds, lambda: self.bus.defer(function))

    def _say(self, message: str) -> None:
        """Log a failure, unless it repeats the last one: a child may fail in the same way for hours."""
        same = re.sub(r"\d+", "N", message)
        if same != self._said:
            self._said = same
            self.bus.log(message, level=40)
