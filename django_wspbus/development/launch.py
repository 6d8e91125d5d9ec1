"""The start of a site by the launcher, and the messages between the two.

The fields of the messages that the site sends:

- ``running``: it runs the command now; ``stale``: it was a spare, and its libraries have changed since.
- ``sockets``, ``stop_timeout``: its listening sockets, with the descriptors, and STOP_TIMEOUT.
- ``watch``, ``since``: a `WatchList` of its files, or of those that it has imported since a moment.
- ``hosts``, ``started``: ALLOWED_HOSTS and DEBUG, once it serves.
- ``library``: the libraries that a spare imports (`Libraries`); None disables the spare.
- ``exiting``, ``relaunching``: it ends for good; it ends so that the launcher starts it again.
- ``failed``, ``ended``: the `Failure` of a boot; the status with which it ends.
- ``taken``, ``declined``: the number of a connection of a client that it answers, or does not, as it ends;
  ``waiting``: the `WaitingClient`s that wait for the next boot, with their connections.

The launcher sends the site ``changed``, the files that have changed; ``again``, so that the site ends and
starts again; ``interrupted``, after a SIGINT that only the terminal sends to the site as well; and
``control``, the `ClientRequest` of a client of the control socket, with its connection. It sends the
error page an `ErrorReport`, with the listening sockets; and ``retry``, so that the page ends for another
boot.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..process.messages import Link

HEALTH = 'WSPBUS["HEALTH"]'
"""The holder of the sockets of probes, as `servers.sockets.Sockets` has it."""

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C, for a site without signal handlers yet."""

CHANGED, WATCH = "autoreload.changed", "autoreload.watch"
"""Channels: the site asks its workers about changed files; the workers report the files they import."""

LAUNCHER_TIMEOUT = 60.0
"""Seconds that a process waits at its end for a launcher that does not read, because SIGSTOP stopped it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a site does not serve."""

    title: str
    """The error in one line."""
    text: str
    """The whole error, without colours, as the terminal shows it."""
    debug: bool | None = None
    """DEBUG of the site; None if the settings failed before it was known."""
    is_shown: bool = True
    """True if the terminal shows it already."""


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """The failure of the site, as the error page shows it."""

    title: str
    text: str
    is_public: bool
    """True if clients may see the error."""
    root: str
    """The folder of the project."""
    hosts: list[str]
    """The allowed hosts besides `error_page.hosts.LOCAL`."""
    probed: list[int]
    """The indexes of the sockets of the probes, whose clients learn only that the site does not start."""


@dataclass(frozen=True, slots=True)
class Libraries:
    """The modules that a spare imports, as a site that has booted the project describes them."""

    modules: dict[str, str]
    """The file of each module by its name; a module stands before those that it imports."""
    preload: Sequence[str]
    """PRELOAD of AUTORELOAD."""
    obstacle: str | None = None
    """The reason why a spare would differ from a new interpreter; None if it would not."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request of a client of the control socket, which the launcher passes on to the site."""

    number: int
    """The number with which the site says if it answers the client."""
    action: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Start:
    """The start of a site, as the launcher describes it."""

    began: int = 0
    """The moment of the start, as `time.time_ns`."""
    launches: int = 0
    """The number of starts so far, with this one."""
    has_served: bool = False
    """True if the site has served after one of the starts before."""


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

    def lines(self, banner: Iterable[str]) -> Iterator[str]:
        """Yield the banner until the site has served, and later how long the start took."""
        if self.has_served:
            seconds = (time.time_ns() - self.began) / 1e9
            yield f"Serving again after {seconds:.2f} s."
        else:
            yield from banner


current: list[Launch] = []
"""The launch of this process, from `development.site_program` until `Launch.take`."""
