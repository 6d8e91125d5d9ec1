"""The consequences that the way of restarting has for the plugins of a site."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The fate of sockets, children and requests when a restart replaces the process of a site."""

    lends_sockets: bool
    """True if another process holds the sockets as well, and keeps them when this process ends."""
    keeps_children: bool
    """True if the children keep serving meanwhile."""
    watches_files: bool
    """True if the workers ask for a restart when a file changes."""
    time_for_requests: float | None = None
    """Seconds after which a stop cuts off the requests in flight; None: the share of STOP_TIMEOUT."""
