"""The one bus of the process, made when this module is first imported."""

from __future__ import annotations

import logging

from ..wspbus import Bus, Listener
from .log_memory import log_memory
from .site import NoSite, Site

logger = logging.getLogger("django_wspbus")


class ProcessBus(Bus):
    """The bus of a Django process, without a role at first; it logs to Python logging."""

    site: Site
    """The site process, as this process reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.roles = frozenset()
        self.site = NoSite()
        self.subscribe("log", log_to_python, role="any")

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


bus = ProcessBus()
