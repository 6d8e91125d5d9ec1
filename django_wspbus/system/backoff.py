"""Growing intervals between attempts."""

from __future__ import annotations

FIRST = 0.1
"""Seconds of the first wait, after the second failure."""

MOST = 15.0
"""Seconds of the longest wait."""

HEALTHY_LIFETIME = 1
"""Seconds after which a serving child or worker counts as healthy, even if it has answered no request."""


class Backoff:
    """The interval before the next attempt: none after the first failure, then growing ones."""

    def __init__(self) -> None:
        self.failures = 0

    def note(self, *, worked: bool) -> float:
        """Record a failure and return the seconds to wait; ``worked``: the attempt succeeded at first."""
        self.failures = 1 if worked else self.failures + 1
        return 0 if self.failures == 1 else min(FIRST * 2 ** min(self.failures - 2, 30), MOST)
