"""The start of a site by the launcher, and the site's link to the launcher.

The site sends, each with the fields that are named:

- ``running``: it has begun to run the command; ``stale``: it was a spare, and is not fit any more.
- ``sockets``, ``stop_timeout``: what it listens on, with the descriptors, and STOP_TIMEOUT.
- ``watch``, ``since``: a `WatchList` of what it was made of, or, since some time, has imported as well.
- ``hosts``, ``started``: ALLOWED_HOSTS and DEBUG, once it serves.
- ``library``: what a spare is to be made of; None if there is to be none.
- ``exiting``, ``relaunching``: it ends for good, or to be started again.
- ``failed``, ``ended``: a report of why it does not boot; the status with which it ends.

The launcher sends it ``changed``, the files that have changed, and ``again``, to have it start again. It
sends an error page ``retry``, to have it end for another boot.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..process.messages import Link

HEALTH = 'WSPBUS["HEALTH"]'
"""The holder of the sockets of probes, as `servers.sockets.Sockets` has it."""

INTERRUPTED = 128 + signal.SIGINT
"""The status of a site that Ctrl-C has ended before it had handlers of signals."""

CHANGED, WATCH = "autoreload.changed", "autoreload.watch"
"""Channels: the site asks its workers about files, with their paths; a worker tells what is to be watched."""

TIME_TO_TELL = 60.0
"""Seconds that a launcher which does not read, as it is stopped, keeps a process from its end."""


@dataclass(slots=True)
class Start:
    """A start, as the launcher describes it to the site."""

    began: int = 0
    """When that was, as `time.time_ns`."""
    launches: int = 0
    """How many starts there were, this one included."""


@dataclass(slots=True, kw_only=True)
class Launch(Start):
    """The start of this process by the launcher."""

    link: Link

    @classmethod
    def take(cls) -> Launch | None:
        """Return, once, the launch of this process; None if the launcher did not start it."""
        taken = current[:]
        current.clear()
        return taken[0] if taken else None

    def news(self, banner: Iterable[str]) -> Iterator[str]:
        """Yield the banner at the first start, and later how long the start took."""
        if self.launches == 1:
            yield from banner
        else:
            seconds = (time.time_ns() - self.began) / 1e9
            yield f"Serving again after {seconds:.2f} s."


current: list[Launch] = []
"""The launch of this process, from `development.launched` until `Launch.take`."""
