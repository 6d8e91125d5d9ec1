"""The fleet, seen from a process of a site other than the site process."""

from __future__ import annotations

from typing import Any

from ..wspbus import Bus
from .asking import RemoteSite
from .fleet import Fleet, Reply
from .inbox import Delivery, Inbox
from .reports import Broadcast
from .site import SiteUnreachable
from .worker_orders import Deliver, Missed

ASK = "fleet.ask"
"""The request to the site by which a process asks all processes of the fleet."""

MORE_TIME = 1.0
"""Seconds that a process waits for the replies longer than the site does."""


class FleetOfSite(Fleet):
    """Sends and receives through the site process. ``before``: the fleet of a process without a site."""

    def __init__(self, bus: Bus, site: RemoteSite, before: Fleet) -> None:
        self.before = before
        self._site = site
        self._inbox = Inbox(bus)

    @property
    def largest(self) -> int:  # type: ignore[override]
        return self.before.largest

    def broadcast(self, channel: str, args: list[Any]) -> None:
        self._site.offer(Broadcast(channel, args))

    @property
    def has_engine(self) -> bool:
        return self.before.has_engine

    def broadcast_in_transaction(self, channel: str, args: list[Any], using: str | None) -> None:
        if self.has_engine:
            self.before.broadcast_in_transaction(channel, args, using)
        else:
            super().broadcast_in_transaction(channel, args, using)

    def ask(self, channel: str, args: list[Any], timeout: float) -> list[Reply]:
        try:
            replies = self._site.ask_within(timeout + MORE_TIME, ASK, channel, args, timeout)
        except RuntimeError as error:
            raise SiteUnreachable(f"The site process cannot ask the fleet: {error}") from error
        return [Reply(**each) for each in replies]

    def close(self) -> None:
        """Publish no further message: this process leaves the site."""
        self._inbox.close()

    def hear(self, order: Deliver | Missed) -> None:
        """Publish a message on the bus of this process, in the thread for that."""
        match order:
            case Deliver(sender, channel, args):
                self._inbox.put(Delivery(sender, channel, args))
            case Missed(count):
                self._inbox.note_missed("", count)
