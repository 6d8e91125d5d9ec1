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
"""The share for naming and ending what is left: of the workers, then of the site."""

LEAST = 0.5
"""Seconds that a share has at least: a busy machine needs them to run anything at all."""

OF_A_BOOT = 2.0
"""Seconds that the listeners of a child which never served have; it has nothing to answer."""


@dataclass(frozen=True, slots=True)
class Phases:
    """When each phase of an exit has to be over, in seconds of `time.monotonic`."""

    serving: float
    """DRAIN_DELAY: the site answers as before."""
    requests: float
    """What is in the queue and in flight is answered."""
    workers: float
    """The ``stop`` and ``exit`` listeners of the workers have run."""
    children: float
    """The children have ended; the site kills what is left of them."""
    site: float
    """The ``stop`` and ``exit`` listeners of the site have run."""

    @classmethod
    def between(cls, begin: float, site: float, delay: float = 0) -> Phases:
        """Divide the time from the beginning of an exit to the end of the site's listeners.

        Requests have what the shares of the others leave, but at least half of the time after ``delay``.
        Of a ``delay`` that would take all, two seconds, or half of the time, are kept.
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
        """Return the phases of the exit that is under way; without one, those of children that end now."""
        now = time.monotonic()
        if bus.deadline is None:
            return cls.between(now, now + time_of_site(settings.stop_timeout))
        return cls.between(bus.exit_under_way.began or now, bus.deadline, settings.drain_delay)

    def hurried(self, requests: float, listeners: float) -> Phases:
        """Return phases that give requests, and then the listeners of workers, so many seconds at most."""
        answered = min(self.requests, time.monotonic() + requests)
        workers = min(self.workers, answered + listeners)
        return Phases(self.serving, answered, workers, min(self.children, workers + LEAST), self.site)


def time_of_site(stop_timeout: float) -> float:
    """Return the seconds of STOP_TIMEOUT after which the site ends what hangs in it."""
    return stop_timeout - min(max(ENDING * stop_timeout, LEAST), stop_timeout / 8)
