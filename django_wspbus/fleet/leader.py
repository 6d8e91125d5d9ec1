"""`bus.leader` in a process that may lead."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..process.leader import Leader, NotLeader
from .base import Engine
from .election import Election


class ElectedLeader(Leader):
    """The leadership of this process. ``engine``: for transactions, which need no connection of its own."""

    def __init__(self, election: Election, engine: Engine) -> None:
        self._election = election
        self._engine = engine

    @property
    def token(self) -> int:
        if (term := self._election.term) is None:
            raise NotLeader("This process does not lead at present.")
        return term.lease.token

    @contextmanager
    def fence(self, using: str = "default") -> Generator[int]:
        token = self.token
        with self._engine.fence(token, using):
            yield token
