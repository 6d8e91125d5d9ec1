"""The membership of a process in its site: its record, its links, and the orders that it obeys."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from .asking import RemoteSite
from .log_memory import log_memory
from .messages import Message
from .process_bus import ProcessBus
from .record import Record
from .reports import Replied
from .site import reasons
from .worker_orders import Order, Publish, read_order

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
        self._obey = obey

    def join(self) -> None:
        """Join the site: from now on the site reads the record, and its orders are heard."""
        self.record.pid = os.getpid()
        log_memory.keep(self.record.ring.write)
        self.site.announce_role("worker", self.record)
        self.site.listen(self.hear)
        self.bus.site = self.site

    def leave(self) -> None:
        """Leave the site, which goes on; a process that ends need not call this."""
        self.site.close()
        log_memory.stop()

    def hear(self, message: Message) -> None:
        """Carry out an order of the site, in the thread that listens."""
        try:
            order = read_order(message)
        except (KeyError, TypeError) as error:  # the site has been restarted with another version
            logger.warning("Process %s does not know an order of the site: %r", os.getpid(), error)
            return
        match order:
            case Publish():  # a listener that hangs must not keep this thread from later orders
                name = f"Publish {order.channel}"
                threading.Thread(target=self._publish, args=(order,), name=name, daemon=True).start()
            case _:
                self._obey(order)

    def _publish(self, order: Publish) -> None:
        results, error = None, None
        try:
            results = self.bus.publish(order.channel, *order.args)
        except (Exception, SystemExit) as raised:  # the process that asks gets the error
            error = reasons(raised)
        try:
            self.site.report(Replied(order.number, os.getpid(), results, error))
        except (TypeError, ValueError, RecursionError) as unfit:
            reason = f"The result of {order.channel} cannot be sent to another process: {unfit}."
            self.site.report(Replied(order.number, os.getpid(), None, reason))
