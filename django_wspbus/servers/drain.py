"""The order of an exit: readiness first, then the queue, then the servers, then late clients."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..children.children import Children
from ..process.phases import Phases
from ..sockets.late_clients import TIMEOUT, turn_away
from ..sockets.queue import close_queue, is_empty
from ..wspbus import Bus
from ..wspbus.plugin import Plugin
from .sockets import Sockets

if TYPE_CHECKING:
    from ..conf import Settings

WAIT_FOR_QUEUE = 0.5
"""Seconds that the servers have to accept the clients in the queue. Under load it never becomes empty."""


class Drain(Plugin):
    """Closes the queues of the site's own sockets before its servers stop, and the sockets after that.

    For DRAIN_DELAY the site keeps serving, while its probes report already that it drains.
    ``in_process``: whether there is a server in this process, besides the ``children``. Sockets that systemd
    has passed are not touched: the next site serves the clients that wait there.
    """

    role = "site"

    def __init__(
        self, bus: Bus, site: Settings, sockets: Sockets, children: Children, *, in_process: bool = False
    ) -> None:
        super().__init__(bus)
        self.site = site
        self.in_process = in_process
        self.sockets = sockets
        self.children = children
        self._has_served = False

    def start(self) -> None:
        self._has_served = True

    start.priority = 100  # type: ignore[attr-defined]

    @property
    def _is_final(self) -> bool:
        """True if no program serves these sockets after this stop."""
        return self.bus.exit_asked and not self.bus.execv

    def stop(self) -> None:
        if not self._is_final or not self._has_served:
            return
        phases = Phases.of(self.bus, self.site)
        self.bus.wait_for(lambda: False, max(phases.serving - time.monotonic(), 0))
        for bound in self.sockets.of_servers():
            close_queue(bound)
        for child in self.children.serving.values():
            child.drain_queue()
        self._wait_for_queues(min(time.monotonic() + WAIT_FOR_QUEUE, phases.requests))

    stop.priority = 1  # type: ignore[attr-defined]

    def _wait_for_queues(self, until: float) -> None:
        """Wait until the servers have accepted the clients in the queue, as long as a server accepts."""
        # No event says that a queue has become empty: only a look does.
        while time.monotonic() < until and self._serves and not all(map(is_empty, self.sockets.of_servers())):
            self.bus.wait_for(lambda: False, 0.005)

    @property
    def _serves(self) -> bool:
        """True while a server accepts: a signal to the site may have ended its children, too."""
        children = self.children.serving.values()
        return self.in_process or any(not child.ended for child in children)

    def turn_away(self) -> None:
        """Answer the late clients, after the servers have stopped, and close the sockets of these servers."""
        self._has_served = False
        if self.bus.execv:
            turn_away(self.sockets.unwanted(), self._time_to_turn_away())
        elif self.bus.exit_asked:
            turn_away(self.sockets.of_servers(), self._time_to_turn_away())

    def exit(self) -> None:
        if not self.bus.execv:
            self.end()

    exit.priority = 89.5  # type: ignore[attr-defined]  # between the probes and the end of the sockets

    def end(self) -> None:
        """Answer the clients that are left in queues: of the probes, or of a restart that did not happen."""
        for bound in self.sockets.own():
            close_queue(bound)
        self.children.end_all()
        turn_away(self.sockets.own(), self._time_to_turn_away())

    def _time_to_turn_away(self) -> float:
        """Return seconds: a part of the time of the site's listeners, which run afterwards."""
        if self.bus.deadline is None:
            return TIMEOUT
        return min(TIMEOUT, max(self.bus.deadline - time.monotonic(), 0) / 4)

    def subscribe(self) -> None:
        super().subscribe()
        self.bus.subscribe("stop", self.turn_away, 27, role=self.role)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe("stop", self.turn_away)
