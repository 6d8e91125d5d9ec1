"""The class of the bus of a Django process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from ..wspbus import Bus, Listener
from .alone import OwnProcess
from .fleet import LONGEST_TIMEOUT, Fleet, Reply, checked
from .leader import Leader
from .log_memory import log_memory
from .site import NoSite, Site

logger = logging.getLogger("django_wspbus")


class ProcessBus(Bus):
    """The bus of a Django process, without a role at first; it logs to Python logging.

    ``joined(bus)`` makes the process one of its site for the time of a block, if there is a site to join.
    """

    site: Site
    """The site process, as this process reaches it."""

    leader: Leader
    """The leadership of this process."""

    fleet: Fleet
    """All processes of the fleet, as this process reaches them."""

    def __init__(
        self,
        joined: Callable[[Any], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        super().__init__()
        self.roles = frozenset()
        self.site = NoSite()
        self.leader = Leader()
        self.fleet = OwnProcess(self)
        self._joined = joined
        self.subscribe("log", log_to_python, role="any")

    @contextlib.contextmanager
    def running(self, *roles: str) -> Generator[Bus]:
        """See `Bus.running`; a program of PROCESSES belongs to its site meanwhile."""
        with self._joined(self), super().running(*roles):
            yield self

    # The fleet

    def broadcast(
        self,
        channel: str,
        *args: Any,
        on_commit: bool = False,
        atomic: bool = False,
        using: str | None = None,
    ) -> None:
        """Publish on a channel in every process of the fleet, in a thread of its bus, at most once.

        It returns at once. ``on_commit``: send after the commit of the transaction on the database ``using``,
        and nothing after a rollback. ``atomic``: send with that commit, as a part of the transaction; only on
        PostgreSQL, if that is the engine of the fleet, and right after the commit without FLEET.

        Arguments arrive as JSON has them. TypeError for what JSON does not know; ValueError for a message
        that is too large, and for a channel on which the bus itself publishes.
        """
        values = checked(channel, args, self.fleet.largest)
        if atomic:
            self.fleet.broadcast_in_transaction(channel, values, using)
        elif on_commit:
            from django.db import transaction  # a bus without Django has no transactions

            transaction.on_commit(partial(self._broadcast, channel, values), using=using)
        else:
            self._broadcast(channel, values)

    def _broadcast(self, channel: str, args: list[Any]) -> None:
        self.fleet.broadcast(channel, args)

    def ask(self, channel: str, *args: Any, timeout: float = 2) -> list[Reply]:
        """Publish on a channel in every process of the fleet; return the reply of each.

        A process that does not answer within ``timeout`` seconds (60 at most) has a reply with ``missing``.
        `SiteUnreachable` if the site of this process does not answer. For the rest see `broadcast`.
        """
        if not 0 < timeout <= LONGEST_TIMEOUT:
            raise ValueError(f"A timeout is more than 0 and at most {LONGEST_TIMEOUT:g} s, not {timeout!r}.")
        return self.fleet.ask(channel, checked(channel, args, self.fleet.largest), timeout)

    # Reports

    def report_failure(self, channel: str, listener: Listener, error: Exception) -> None:
        if not self.site.report_failure(channel, error):
            super().report_failure(channel, listener, error)

    def report_failed_start(self, error: BaseException) -> None:
        if not self.site.report_failed_start(error):
            super().report_failed_start(error)

    def report_hanging(self, text: str) -> None:
        if not self.site.report_hanging(text):
            super().report_hanging(text)


def log_to_python(message: str, level: int = logging.INFO) -> None:
    """Hand a message of the bus to the logger ``django_wspbus``."""
    logger.disabled = False  # by default, LOGGING disables the loggers that were there before it
    logger.log(level, "%s", message)
    log_memory.note_message(message, level)
