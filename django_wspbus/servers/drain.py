"""The order of an exit: readiness first, then the queue, then the servers, then who came too late."""

from __future__ import annotations

import time

from ..plugin import Plugin
from ..wspbus import Bus
from .children import Children
from .queue import PATIENCE, close_queue, is_empty, turn_away
from .sockets import Sockets

WAIT_FOR_QUEUE = 0.5
"""Seconds that the servers have to accept who is in the queue; under load it never empties by itself."""


class Drain(Plugin):
    """Closes the queues of the site's own sockets before its servers stop, and the sockets after that.

    ``delay``: seconds to serve on, while the probes say that the site is draining already.
    ``in_process``: whether there is a server in this process, besides the ``children``. The
    sockets that systemd passed are left alone: who waits there is served by the next site.
    """

    role = "site"

    def __init__(
        self, bus: Bus, sockets: Sockets, children: Children, *, delay: float = 0, in_process: bool = False
    ) -> None:
        super().__init__(bus)
        self.in_process = in_process
        self.sockets = sockets
        self.children = children
        self.delay = delay
        self._has_served = False

    def start(self) -> None:
        self._has_served = True

    start.priority = 100  # type: ignore[attr-defined]

    @property
    def _is_final(self) -> bool:
        """Whether this stop is for good: nobody will serve these sockets after it."""
        return self.bus.exit_asked and not self.bus.execv

    def stop(self) -> None:
        if not self._is_final or not self._has_served:
            return
        self.bus.wait_for(lambda: False, self.delay)
        for bound in self.sockets.of_servers():
            close_queue(bound)
        for generation in self.children.serving.values():
            generation.drain_queue()
        self._wait_for_queues()

    stop.priority = 1  # type: ignore[attr-defined]

    def _wait_for_queues(self) -> None:
        """Wait until the servers have accepted who is in the queue, while they still do."""
        # Nothing tells that a queue has become empty: it has to be looked at.
        waited, step = 0.0, 0.005
        while waited < WAIT_FOR_QUEUE and self._serves and not all(map(is_empty, self.sockets.of_servers())):
            self.bus.wait_for(lambda: False, step)
            waited += step

    @property
    def _serves(self) -> bool:
        """Whether anybody is left to accept: who tells the site to exit may tell its children, too."""
        children = self.children.serving.values()
        return self.in_process or any(not generation.ended for generation in children)

    def turn_away(self) -> None:
        """The servers have stopped: answer who came too late, and close what nobody will serve any more."""
        self._has_served = False
        parted = []
        if self.bus.execv:
            parted = self.sockets.unwanted()
        elif self.bus.exit_asked:
            parted = self.sockets.of_servers()
        for bound in parted:
            turn_away(bound, min(PATIENCE, self._time_left() / (2 * len(parted))))

    def exit(self) -> None:
        if not self.bus.execv:
            self.end()

    exit.priority = 89.5  # type: ignore[attr-defined]  # between the probes and the end of the sockets

    def end(self) -> None:
        """Leave nobody in a queue: who asked the probes too late, or came for a restart that is none now."""
        for bound in self.sockets.own():
            close_queue(bound)
        self.children.leave()
        for bound in self.sockets.own():
            turn_away(bound, min(PATIENCE, self._time_left() / 2))

    def _time_left(self) -> float:
        return PATIENCE if self.bus.deadline is None else max(self.bus.deadline - time.monotonic(), 0)

    def subscribe(self) -> None:
        super().subscribe()
        self.bus.subscribe("stop", self.turn_away, 27, role=self.role)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe("stop", self.turn_away)
