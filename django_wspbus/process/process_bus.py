"""The class of the bus of a Django process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator
from typing import Any

from ..wspbus import Bus, Listener
from .log_memory import log_memory
from .site import NoSite, Site

logger = logging.getLogger("django_wspbus")


class ProcessBus(Bus):
    """The bus of a Django process, without a role at first; it logs to Python logging.

    ``joined(bus)`` makes the process one of its site for the time of a block, if there is a site to join.
    """

    site: Site
    """The site process, as this process reaches it."""

    def __init__(
        self,
        joined: Callable[[Any], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        super().__init__()
        self.roles = frozenset()
        self.site = NoSite()
        self._joined = joined
        self.subscribe("log", log_to_python, role="any")

    @contextlib.contextmanager
    def running(self, *roles: str) -> Generator[Bus]:
        """See `Bus.running`; a program of PROCESSES belongs to its site meanwhile."""
        with self._joined(self), super().running(*roles):
            yield self

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
