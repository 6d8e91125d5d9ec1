"""The start of a site by the launcher, and the site's link to the launcher."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..process.messages import Link

HEALTH = 'WSPBUS["HEALTH"]'
"""The holder of the sockets of probes, as `servers.sockets.Sockets` has it."""

INTERRUPTED = 128 + signal.SIGINT
"""The status of a site that Ctrl-C has ended before it had handlers of signals."""

TIME_TO_TELL = 60.0
"""Seconds that a launcher which does not read, as it is stopped, keeps a process from its end."""


@dataclass(slots=True)
class Start:
    """A start, as the launcher describes it to the site."""

    since: int = 0
    """When that was, as `time.time_ns`: a file that has changed later may have been read before."""
    seen: dict[str, str] = field(default_factory=dict)
    """{path: digest} of files that had been changed during the boot before this one."""
    repeats: dict[str, int] = field(default_factory=dict)
    """{path: how many boots in a row, before this one, it has been changed during}."""
    changed: list[str] = field(default_factory=list)
    """The files whose changes have caused it."""
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
            seconds = (time.time_ns() - self.since) / 1e9
            yield f"Serving again after {seconds:.2f} s."


current: list[Launch] = []
"""The launch of this process, from `development.launched` until `Launch.take`."""
