"""The membership of a process in its site: its record, its links, and the orders that it obeys."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from .asking import RemoteSite
from .fleet_of_site import FleetOfSite
from .log_memory import log_memory
from .messages import Message
from .process_bus import ProcessBus
from .publication import Outcome, Publication
from .record import Record
from .reports import Replied
from .worker_orders import Deliver, Missed, Order, Publish, read_order

logger = logging.getLogger("django_wspbus")


class Membership:
    """Makes this process one of its site: a worker, or a program of PROCESSES that joins.

    ``site``: the site, as the process reaches it from `join` on; ``record``: its own record, which the site
    gets. ``obey(order)`` carries out the orders that are not the same for all processes.
    """

    def __init__(
        self,
        bus: ProcessBus,
        site: RemoteSite,
        record: Record,
        obey: Callable[[Order], object] = lambda order: None,
    ) -> None:
        self.bus = bus
        self.site = site
        self.record = record
        self.fleet = FleetOfSite(bus, site, bus.fleet)
        self._obey = obey

    def join(self) -> None:
        """Join the site: from now on the site reads the record, and its orders are heard."""
        self.record.pid = os.getpid()
        log_memory.keep(self.record.ring.write)
        self.site.announce_role("worker", self.record)
        self.bus.site = self.site
        self.bus.fleet = self.fleet
        self.site.listen(self.hear)

    def leave(self) -> None:
        """Leave the site, which goes on; a process that ends need not call this."""
        self.bus.fleet = self.fleet.before
        self.site.close()
        self.fleet.close()
        log_memory.stop()

    def hear(self, message: Message) -> None:
        """Carry out an order of the site, in the thread that listens."""
        try:
            order = read_order(message)
        except (KeyError, TypeError) as error:  # the site has been restarted with another version
            logger.warning("Process %s does not know an order of the site: %r", os.getpid(), error)
            return
        match order:
            case Publish(number, channel, args):
                Publication(self.bus, channel, args).begin(lambda outcome: self._reply(number, outcome))
            case Deliver() | Missed():
                self.fleet.hear(order)
            case _:
                self._obey(order)

    def _reply(self, number: int, outcome: Outcome) -> None:
        try:
            self.site.report(Replied(number, os.getpid(), outcome.results, outcome.error))
        except ValueError as unfit:
            reason = f"The result cannot be sent to another process: {unfit}."
            self.site.report(Replied(number, os.getpid(), None, reason))
