"""The statuses of processes, in words."""

from __future__ import annotations

import signal


def how_ended(status: int) -> str:
    """Return in words how a process ended, from its status as `subprocess` has it."""
    if status >= 0:
        return f"with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # most signals of real time have no name
        return f"killed by signal {-status}"
