"""`bus.site`: the way to the site process from any process of the site."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from ..wspbus import Bus, ChannelFailures, Refusal


class SiteUnreachable(Exception):
    """There is no site process, or it does not answer."""


class Site:
    """The site. `SiteUnreachable` is raised where there is none, and where it does not answer.

    Each method may be called by any thread. From another process than the site's own, arguments and results
    travel as JSON of 16 MiB at most: a larger argument is a ValueError, one that JSON does not know a
    TypeError, and a result of either kind a RuntimeError.
    """

    def graceful(self) -> None:
        """Reload; return once the new code serves. RuntimeError, with the reason, if it does not."""
        self.ask("graceful")

    def restart(self) -> None:
        """Restart the site; return once its new code has been tried. RuntimeError if it is refused."""
        self.ask("restart")

    def exit(self) -> None:
        """Tell the site to exit; return once it has accepted that."""
        self.ask("exit")

    def publish(self, channel: str, *args: Any) -> list[Any]:
        """Publish on the bus of the site process; return what its listeners returned."""
        result: list[Any] = self.ask("publish", channel, *args)
        return result

    def status(self) -> dict[str, Any]:
        """Return ``{"pid": int, "state": str, "reason": str, "servers": {alias: {...}}}``, and more."""
        result: dict[str, Any] = self.ask("status")
        return result

    # What the bus of this process reports. Each returns whether the site reports it in its place.

    def report_failure(self, channel: str, error: Exception) -> bool:
        """Report that a listener of this process failed."""
        return False

    def report_failed_start(self, error: BaseException) -> bool:
        """Report why the bus of this process does not start."""
        return False

    def report_hanging(self, text: str) -> bool:
        """Report what hangs in this process, which is about to end."""
        return False

    def ask(self, what: str, *args: Any) -> Any:
        raise SiteUnreachable(
            "This process belongs to no site: bus.site needs `manage.py runbus`, or one of its workers."
        )


class NoSite(Site):
    """The site of a process that belongs to none."""


class LocalSite(Site):
    """The site, in its own process."""

    def __init__(self, bus: Bus, status: Callable[[], dict[str, Any]]) -> None:
        self._bus = bus
        self._status = status
        self._pid = os.getpid()

    def ask(self, what: str, *args: Any) -> Any:
        if os.getpid() != self._pid:
            raise SiteUnreachable("This process was forked from the site process, and is not part of it.")
        if what == "status":
            return self._status()
        if what == "publish":
            return self._bus.publish(*args)
        if what == "exit" and threading.current_thread() is not threading.main_thread():
            self._bus.defer(self._bus.exit)  # a request that asks is to be answered before
            return None
        if what == "exit":
            return self._bus.exit()
        if what in ("graceful", "restart"):
            return self._renew(what)
        raise ValueError(f"A site knows no {what!r}.")

    def _renew(self, what: str) -> None:
        try:
            getattr(self._bus, what)()
        except ChannelFailures as failures:  # the same as from any other process
            raise RuntimeError(reasons(failures)) from failures


def reasons(error: BaseException) -> str:
    """Return why what the site was asked for failed."""
    if isinstance(error, ChannelFailures):
        return "\n".join(map(reasons, error.get_instances()))
    return str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
