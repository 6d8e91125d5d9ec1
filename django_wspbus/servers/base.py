"""The base of every server: a plugin of the site process that serves on the sockets of the site."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from django.utils.module_loading import import_string

from ..application.interfaces import Application
from ..application.loading import load
from ..application.warmup import warm_up
from ..conf.findings import Problem
from ..process.phases import Phases
from ..process.slots import InFlight
from ..wspbus import Refusal
from ..wspbus.plugin import Plugin

if TYPE_CHECKING:
    from ..conf import ServerSettings, Settings
    from ..sockets.bound import Bound
    from ..wspbus import Bus

BEFORE_STOP = 24
"""The priority of `tell_to_stop`, just before that of `stop`."""

MOST_NAMED = 20
"""Requests that a message names."""


class Server(Plugin):
    """Base of the server plugins. A server of your own implements `start` and `stop`.

    ``start()`` (priority 75) returns once the server answers requests, and raises if it does not;
    ``stop()`` (priority 25) returns once it has answered the requests in flight. ``bound()`` returns the
    sockets, which are listening already; the site closes them.
    """

    role = "site"
    title: ClassVar[str] = ""
    """The name in the banner, with the version if there is one."""
    is_for_development: ClassVar[bool] = False
    """True if the banner warns of its use in production."""
    in_process: ClassVar[bool] = True
    """True if it serves in the site process, which then plays the role of a worker too."""

    replaces_workers: ClassVar[bool] = False
    """True if it replaces single workers, as REQUEST_TIMEOUT and RECYCLE ask: see `children.retiring`."""

    def __init__(
        self, bus: Bus, settings: ServerSettings, site: Settings, bound: Callable[[], list[Bound]]
    ) -> None:
        super().__init__(bus)
        self.settings = settings
        self.site = site
        self.bound = bound

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.alias}>"

    @classmethod
    def check_options(cls, settings: ServerSettings) -> Iterable[Problem]:
        """Return the mistakes in the OPTIONS that are the same on every machine."""
        return ()

    @classmethod
    def check_machine(cls, settings: ServerSettings) -> Iterable[Problem]:
        """Return the mistakes in the OPTIONS on this machine, such as missing files."""
        return ()

    def check(self) -> None:
        """Check for ``runbus --check`` whether this server would start; raise the error that prevents it."""
        self.load()

    @classmethod
    def effective_options(cls, settings: ServerSettings, site: Settings) -> dict[str, Any]:
        """Return the options in force, for ``--print-settings``; a `Refusal` if they are not known."""
        return dict(settings.options)

    def load(self) -> Application:
        """Load the application to serve; a `Refusal` names this server and says why that fails."""
        try:
            return load(self.settings, self.site.static_files)
        except Refusal as refusal:
            raise self.refusal(str(refusal)) from refusal

    def warm_up(self, application: Application) -> None:
        """Make the application answer the requests of WARMUP; a `Refusal` says which it cannot answer."""
        try:
            warm_up(application, self.site.warmup)
        except Refusal as refusal:
            raise self.refusal(str(refusal)) from refusal

    def refusal(self, reason: str, status: int = 1) -> Refusal:
        return Refusal(f"The server {self.settings.alias!r} did not start: {reason}", status=status)

    def subscribe(self) -> None:
        super().subscribe()
        self.bus.subscribe("stop", self.tell_to_stop, BEFORE_STOP, role=self.role)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe("stop", self.tell_to_stop)

    def tell_to_stop(self) -> None:
        """Begin to stop, without waiting for anything, so that each server has the whole time."""

    def start(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how it starts.")

    start.priority = 75  # type: ignore[attr-defined]

    def stop(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how it stops.")

    stop.priority = 25  # type: ignore[attr-defined]

    def time_to_stop(self) -> float:
        """Return the seconds that `stop` may take: the rest of the share of requests (`phases`)."""
        return max(Phases.of(self.bus, self.site).requests - time.monotonic(), 0)

    @property
    def failure(self) -> str | None:
        """Return why it does not serve at present; None if it does."""
        return None

    def in_flight(self) -> list[InFlight]:
        """Return the requests that it answers in this process; any thread calls this."""
        return []

    @property
    def trouble(self) -> str | None:
        """Return why a stuck worker cannot be replaced; None if none is stuck, or it is being replaced.

        Every client of the probes sees it, so it must not hold the message of an exception.
        """
        return None

    @property
    def saturated_for(self) -> float | None:
        """Return the seconds for which every thread has been busy; None if one is free, or it is unknown."""
        return None

    def status(self) -> dict[str, Any]:
        """Return the entry of this server in ``bus.site.status()``."""
        bound = [each.name for each in self.bound()]
        return {"backend": self.settings.backend, "bind": bound, "pid": os.getpid()}


def server_class(settings: ServerSettings) -> type[Server]:
    """Import the class of a server; ImportError or TypeError if there is none."""
    backend = import_string(settings.backend)
    if not (isinstance(backend, type) and issubclass(backend, Server)):
        raise TypeError(
            f"{settings.backend} is no server: it must be a subclass of {Server.__module__}.Server."
        )
    return backend


def in_words(requests: Iterable[str]) -> str:
    """Return requests as text: each once, with its count, and `MOST_NAMED` at most."""
    counts = Counter(requests)
    words = [
        f"{request} ({count} times)" if count > 1 else request for request, count in sorted(counts.items())
    ]
    more = [f"and {len(words) - MOST_NAMED} others"] if len(words) > MOST_NAMED else []
    return ", ".join(words[:MOST_NAMED] + more)
