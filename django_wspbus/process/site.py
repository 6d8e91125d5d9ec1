"""`bus.site`: the site process, as any process of the site reaches it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..wspbus import Bus, ChannelFailures, Refusal


class SiteUnreachable(Exception):
    """There is no site process, or it does not answer."""


class Site:
    """The site. Its methods raise `SiteUnreachable` if there is none, or if it does not answer.

    Any thread may call them. Between processes, arguments and results travel as JSON of at most 16 MiB. A
    larger argument raises ValueError, and a type that JSON does not know TypeError. Results of either kind
    raise RuntimeError.
    """

    def graceful(self) -> None:
        """Reload; return once the new code serves. RuntimeError with the reason if it does not boot."""
        self.ask("graceful")

    def restart(self) -> None:
        """Restart the site; return after the dry run of the new code. RuntimeError if the dry run fails."""
        self.ask("restart")

    def exit(self) -> None:
        """Ask the site to exit; return once it has accepted the request."""
        self.ask("exit")

    def publish(self, channel: str, *args: Any) -> list[Any]:
        """Publish on the bus of the site process; return the results of its listeners."""
        result: list[Any] = self.ask("publish", channel, *args)
        return result

    def status(self) -> dict[str, Any]:
        """Return ``{"pid": int, "state": str, "reason": str, "servers": {alias: {...}}}``, and more."""
        result: dict[str, Any] = self.ask("status")
        return result

    # Reports of this process's own bus. Each returns True if the site logs it, so that the bus need not.

    def report_failure(self, channel: str, error: Exception) -> bool:
        """Report the failure of a listener of this process."""
        return False

    def report_failed_start(self, error: BaseException) -> bool:
        """Report the error that ended the start of this process's bus."""
        return False

    def report_hanging(self, text: str) -> bool:
        """Report the listener that hangs in this process, just before the process ends."""
        return False

    def ask(self, request: str, *args: Any) -> Any:
        raise SiteUnreachable(
            "This process belongs to no site: bus.site needs `manage.py runbus`, or one of its workers."
        )


class NoSite(Site):
    """The `Site` of a process that belongs to no site."""


class LocalSite(Site):
    """The site, seen from its own process."""

    def __init__(self, bus: Bus, status: Callable[[], dict[str, Any]]) -> None:
        self._bus = bus
        self._pid = os.getpid()
        self._actions: dict[str, Callable[..., Any]] = {
            "status": status,
            "publish": bus.publish,
            "exit": self._exit,
            "graceful": partial(self._reload_or_restart, "graceful"),
            "restart": partial(self._reload_or_restart, "restart"),
        }

    def ask(self, request: str, *args: Any) -> Any:
        if os.getpid() != self._pid:
            raise SiteUnreachable("This process was forked from the site process, and is not part of it.")
        if request not in self._actions:
            raise ValueError(f"The site does not know the request {request!r}.")
        return self._actions[request](*args)

    def _exit(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._bus.exit()
        else:  # the view that calls this must be able to answer first
            self._bus.defer(self._bus.exit)

    def _reload_or_restart(self, request: str) -> None:
        try:
            getattr(self._bus, request)()
        except ChannelFailures as failures:  # other processes get a RuntimeError, too
            raise RuntimeError(reasons(failures)) from failures


def reasons(error: BaseException) -> str:
    """Return the reasons of an error in words, a line for each."""
    if isinstance(error, ChannelFailures):
        return "\n".join(map(reasons, error.get_instances()))
    return str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
