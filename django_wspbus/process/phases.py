"""The phases of an exit, and the share of STOP_TIMEOUT that each of them has.

serving | requests | stop listeners of workers | ending workers | listeners of the site | ending the site
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..conf import Settings
    from ..wspbus import Bus

LISTENERS = 0.1
"""The share of the listeners of workers, and that of the listeners of the site."""

ENDING = 0.05
"""The share for naming and ending the workers that are left, and the same share for the site."""

LEAST = 0.5
"""Seconds of the shortest share: a busy machine needs them to run anything at all."""

TIME_FOR_LISTENERS = 1.0
"""Seconds for the listeners of a worker in development, where the time for requests is limited as well."""

TIME_FOR_LAST_ANSWERS = 1.0
"""Seconds for the requests of a generation that a further reload ends: one may have asked for that reload."""

TIME_FOR_UNSERVED_CHILD = 2.0
"""Seconds for the listeners of a child that never served; it has no requests to answer."""


@dataclass(frozen=True, slots=True)
class Phases:
    """The ends of the phases of an exit, in seconds of `time.monotonic`."""

    serving: float
    """End of DRAIN_DELAY, during which the site answers as before."""
    requests: float
    """End of the time for requests that are queued or in flight."""
    workers: float
    """End of the time for the ``stop`` and ``exit`` listeners of the workers."""
    children: float
    """The time at which the site kills the children that are left."""
    site: float
    """End of the time for the ``stop`` and ``exit`` listeners of the site."""

    @classmethod
    def between(cls, begin: float, site: float, delay: float = 0) -> Phases:
        """Divide the time from the beginning of an exit to the end of the site's listeners.

        Requests have the time that the other shares leave, but at least half of the time after ``delay``.
        A ``delay`` that would take all of the time is shortened: two seconds, or half of the time, remain.
        """
        whole = site - begin
        serving = begin + max(min(delay, whole - min(4 * LEAST, whole / 2)), 0)
        rest = max(site - serving, 0)
        shares = [max(LISTENERS * rest, LEAST), max(ENDING * rest, 1.5 * LEAST), max(LISTENERS * rest, LEAST)]
        scale = min(1, rest / 2 / sum(shares))
        of_workers, of_ending, of_site = (share * scale for share in shares)
        children = site - of_site
        workers = children - of_ending
        return cls(serving, workers - of_workers, workers, children, site)

    @classmethod
    def of(cls, bus: Bus, settings: Settings) -> Phases:
        """Return the phases of the exit under way; if there is none, those of children that end now."""
        now = time.monotonic()
        if bus.deadline is None:
            phases = cls.between(now, now + time_of_site(settings.stop_timeout))
        else:
            phases = cls.between(bus.exit_under_way.began or now, bus.deadline, settings.drain_delay)
        limit = settings.time_for_requests
        return phases if limit is None else phases.shortened(limit, TIME_FOR_LISTENERS)

    @classmethod
    def of_replaced(cls, settings: Settings) -> Phases:
        """Return the phases of a process that another one replaces: its requests have GRACEFUL_TIMEOUT."""
        now = time.monotonic()
        shares = cls.between(now, now + time_of_site(settings.stop_timeout))
        more = now + settings.graceful_timeout - shares.requests
        ends = shares.requests, shares.workers, shares.children, shares.site
        return cls(now, *(end + more for end in ends))

    def shortened(self, requests: float, listeners: float) -> Phases:
        """Return phases with at most these seconds for requests, and then for the workers' listeners."""
        answered = min(self.requests, time.monotonic() + requests)
        workers = min(self.workers, answered + listeners)
        return Phases(self.serving, answered, workers, min(self.children, workers + LEAST), self.site)


def time_of_site(stop_timeout: float) -> float:
    """Return the seconds of STOP_TIMEOUT after which the site ends although its listeners still run."""
    return stop_timeout - min(max(ENDING * stop_timeout, LEAST), stop_timeout / 8)
