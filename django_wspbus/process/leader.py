"""`bus.leader`: the token of the leader, in the process that leads."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class NotLeader(Exception):
    """This process does not lead, or not any more."""


class Leader:
    """The leadership of this process. In a process that never leads, every member raises `NotLeader`."""

    @property
    def token(self) -> int:
        """The token of this leadership: larger than that of every leader before. `NotLeader` without one.

        Store it with what must not happen twice, and refuse a smaller one.
        """
        raise NotLeader(
            "This process does not lead: bus.leader is for listeners of the role 'leader' and jobs."
        )

    @contextmanager
    def fence(self, using: str = "default") -> Generator[int]:
        """Run a transaction that only the leader can commit; yield the token.

        ``using``: the alias of the database, which is that of the fleet (`fleet.postgres`). While the
        transaction runs, no other process can become the leader. `NotLeader` if another one has.
        """
        yield self.token
