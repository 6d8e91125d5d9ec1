"""How long to wait before what has failed is tried again."""

from __future__ import annotations

FIRST = 0.1
MOST = 15.0


class Backoff:
    """Nothing to wait for at first; then ever longer, in seconds, until something has worked."""

    def __init__(self) -> None:
        self.failures = 0

    def note(self, *, worked: bool) -> float:
        """Take one more failure, of something that had ``worked`` before or not; return the wait."""
        self.failures = 1 if worked else self.failures + 1
        return 0 if self.failures == 1 else min(FIRST * 2 ** min(self.failures - 2, 30), MOST)
