"""A server in a child process: the site's part of it, which starts it again if it ends by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from ..children.backoff import FIRST, MOST, Backoff
from ..children.children import Children
from ..children.generation import Generation
from ..wspbus import EX_SOFTWARE, Bus, Refusal
from .base import Server

if TYPE_CHECKING:
    from ..conf import ServerSettings, Settings
    from ..sockets.bound import Bound

PROVEN = 1
"""Seconds after which a child that serves has worked, also if nobody has asked it anything."""

GRACE = 0.5
"""Seconds that a child which was told to leave stays away: systemd tells every process of a site at once."""


class ChildServer(Server):
    """Base of the servers that run in a process of their own.

    ``run`` is "module:function" of what the child runs: ``function(start, pair)``. The child's
    processes say ``ready`` once they could serve, ``failed`` with the reason if they could not, and
    answer requests once they are told to.

    ``check_run`` names the function of a child for ``runbus --check``: it has no sockets, loads all that
    can fail, says that it has no ``workers`` to wait for, and waits to be ended. Without it the site
    process loads the application.
    """

    in_process = False
    run: ClassVar[str] = ""
    check_run: ClassVar[str] = ""

    def __init__(
        self,
        bus: Bus,
        settings: ServerSettings,
        site: Settings,
        bound: Callable[[], list[Bound]],
        *,
        children: Children,
    ) -> None:
        super().__init__(bus, settings, site, bound)
        self.children = children
        self.trouble: str | None = None
        """Why nothing serves, or has not answered yet since it was started again."""
        self._is_up = False  # from the end of a start to the next stop, during which it has to have a child
        self._successor: Generation | None = None
        self._backoff = Backoff()
        self._told: str | None = None

    @property
    def alias(self) -> str:
        return self.settings.alias

    @property
    def patch(self) -> str | None:
        """What a child patches before it imports anything of the project: "gevent" or None."""
        return None

    @property
    def current(self) -> Generation | None:
        """The child that serves."""
        return self.children.serving.get(self.alias)

    @property
    def failure(self) -> str | None:
        """Return why this server does not serve at present."""
        if self.current is None or self.current.ended:
            return f"the server {self.alias!r} has no process: {self.trouble or 'it is not started'}"
        return None

    def status(self) -> dict[str, Any]:
        current = self.current
        leaving = [each.pid for each in self.children.leaving if each.alias == self.alias]
        return {
            **super().status(),
            "pid": current and current.pid,
            "workers": current.workers if current else [],
            "leaving": leaving,
        }

    # Start and stop

    def subscribe(self) -> None:
        super().subscribe()
        self.children.looks.append(self.look)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.children.looks.remove(self.look)

    def start(self) -> None:
        if self.current is None or self.current.ended:  # else it is of the program before a restart
            try:
                self._start()
            except Refusal as refusal:
                if self.bus.outlives_failed_start:  # then it is tried again, as after any other end
                    self.trouble = str(refusal)
                    self._is_up = True
                    self._respawn_in(FIRST)
                raise
        self._is_up = True

    def _start(self) -> None:
        self.trouble = self._successor = self._told = None
        generation = self.boot()
        timeout = self.site.ready_timeout
        self.bus.wait_for(lambda: generation.is_settled, timeout)
        if generation.is_ready:
            self.children.switch([generation])
            return
        why = generation.why_not_ready(timeout)
        failures = self.children.end([generation])
        if not self.bus.exit_asked:
            raise self.refusal("\n".join([why, *failures]), generation.status)
        if failures:
            raise Refusal("\n".join(failures), status=EX_SOFTWARE)

    start.priority = 75  # type: ignore[attr-defined]

    def boot(self) -> Generation:
        """Start a child, which does not serve yet."""
        descriptors = [each.socket.fileno() for each in self.bound()]
        return self.children.boot(self.alias, self.run, descriptors, self.patch)

    def check(self) -> None:
        if not self.check_run:
            super().check()
            return
        timeout = self.site.ready_timeout
        generation = self.children.boot(self.alias, self.check_run, [], self.patch)
        try:
            self.bus.wait_for(lambda: generation.is_settled, timeout)
            if not generation.is_ready:
                why = generation.why_not_ready(timeout)
                raise self.refusal(why, generation.status)
        finally:
            self.children.end([generation])

    def tell_to_stop(self) -> None:
        """Tell the child to answer what is in flight and exit."""
        if not self.children.stay:
            self._is_up = False
            if self.current is not None:
                self.children.dismiss(self.current)

    def stop(self) -> None:
        self.tell_to_stop()  # Children.stop() waits for it

    stop.priority = 25  # type: ignore[attr-defined]

    # Starting it again

    @property
    def _is_cared_for(self) -> bool:
        return self._is_up and not self.bus.exit_asked and not self.children.swapping

    def look(self) -> None:
        """Start the child again if it has ended by itself; have its successor serve once that is ready."""
        if not self._is_cared_for:
            return
        if self._successor is not None:
            self._look_at_successor(self._successor)
        elif (current := self.current) is not None:
            if current.ended:
                self._replace(current)
            else:
                self._look_at(current)

    def _look_at(self, current: Generation) -> None:
        while current.failed_stops:  # of a worker that another has replaced since
            self.bus.log(f"The server {self.alias!r}: {current.failed_stops.pop(0)}", level=40)
        while current.refused_workers:
            self._tell(
                f"A new worker of the server {self.alias!r} did not start: {current.refused_workers.pop()}"
            )
        if self.trouble is not None and current.has_answered:
            self.trouble = self._told = None
            self.bus.log(f"The server {self.alias!r} answers again, process {current.pid}.")

    def _replace(self, ended: Generation) -> None:
        how = ended.how_ended()
        worked = ended.has_answered or ended.lifetime > PROVEN
        self.children.dismiss(ended)  # its workers may still be at work on their last requests
        wait = self._backoff.note(worked=worked)
        self.trouble = f"it ended by itself, {how}"
        if worked:
            self._told = None
        self._tell(f"The server {self.alias!r} ended by itself, {how}: it is started again.")
        self._respawn_in(max(wait, GRACE) if ended.ended_as_told else wait)

    def _look_at_successor(self, successor: Generation) -> None:
        timeout = self.site.ready_timeout
        if successor.is_ready:
            self._successor = None
            self.children.switch([successor])
        elif successor.is_settled or successor.age > timeout:
            self._successor = None
            why = successor.why_not_ready(timeout)
            self.children.dismiss(successor)
            self._tell_failed_respawn(why)

    def _tell_failed_respawn(self, why: str) -> None:
        self.trouble = why
        self._tell(
            f"The server {self.alias!r} does not start again: {why}\n"
            f"It is tried at intervals of up to {MOST:g} seconds; connections wait."
        )
        self._respawn_in(max(self._backoff.note(worked=False), FIRST))

    def _respawn_in(self, seconds: float) -> None:
        if seconds:
            self.children.switchboard.call_later(seconds, lambda: self.bus.defer(self._respawn))
        else:
            self._respawn()

    def _respawn(self) -> None:
        if self._is_cared_for and self.current is None and self._successor is None:
            try:
                self._successor = self.boot()
            except Refusal as refusal:  # a deployment has removed what the child needs, and may bring it back
                self._tell_failed_respawn(str(refusal))
                return
            self.children.switchboard.call_later(
                self.site.ready_timeout + 0.01, lambda: self.bus.defer(self.look)
            )

    def make_way(self) -> None:
        """Give up starting the old code again: new code is about to be booted."""
        successor, self._successor = self._successor, None
        if successor is not None:
            self.children.dismiss(successor)

    def go_on(self) -> None:
        """No new code has come of that: look what the old needs."""
        self._respawn()
        self.look()

    def _tell(self, message: str) -> None:
        """Say what is wrong, unless it is what was said last: what keeps failing does so a thousand times."""
        same = re.sub(r"\d+", "N", message)
        if same != self._told:
            self._told = same
            self.bus.log(message, level=40)
