"""Exit statuses of processes, in words."""

from __future__ import annotations

import signal


def how_ended(status: int) -> str:
    """Describe a status of `subprocess` in words, as in "was killed by SIGKILL"."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # most real-time signals have no name
        return f"was killed by signal {-status}"
