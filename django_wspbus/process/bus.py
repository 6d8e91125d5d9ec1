"""The process's one bus, made when this module is first imported."""

from __future__ import annotations

import logging

from ..wspbus import Bus, Listener
from .site import NoSite, Site

logger = logging.getLogger("django_wspbus")


class ProcessBus(Bus):
    """The bus of a Django process: it plays no role until it is given one, and logs to Python logging."""

    site: Site
    """The way to the site process, from any process of the site."""

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
    logger.disabled = False  # a LOGGING that disables what was there before it does not mean the bus
    logger.log(level, "%s", message)


bus = ProcessBus()
