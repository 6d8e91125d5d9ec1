"""A fleet on an engine that fails, and the accounts of what its sites promise."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Self

import psutil

from ..engines import PostgresServer
from ..processes import DEADLINE
from .failing import ENGINES
from .fleet_of_sites import FleetOfSites, Site, prepare
from .journal import Journal, Note
from .tally import Fault, Life, Tally


def now() -> float:
    """Return the time as the journal has it."""
    return time.clock_gettime(time.CLOCK_REALTIME)


class FailingFleet:
    """Sites that know each other, each with a way of its own to the engine, as a context manager."""

    def __init__(self, engine: str, count: int, lease: float, interval: float = 1.0) -> None:
        self.interval = interval
        self.faults: list[Fault] = []
        self.lives: dict[str, Life] = {}
        """Site -> its life, which lasts."""
        self._ended: list[Life] = []
        with contextlib.ExitStack() as exits:
            self.engine = exits.enter_context(ENGINES[engine](count))
            if isinstance(self.engine.server, PostgresServer):
                prepare(self.engine.server)
            fleet = FleetOfSites(self.engine.server, count, lease, interval=interval, ports=self.engine.ports)
            self.fleet = exits.enter_context(fleet)
            self.fleet.start()
            self._exits = exits.pop_all()
        self.journal: Journal = self.fleet.journal

    def __enter__(self) -> Self:
        for site in self.sites:
            self.note_start(site, is_whole=True)
        self.settle()
        self.journal.await_leader()
        self.began = now()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._exits.close()

    @property
    def sites(self) -> list[Site]:
        return self.fleet.sites

    # Its sites

    def note_start(self, site: Site, *, is_whole: bool) -> None:
        """Note that a site has started; ``is_whole``: all messages have been sent since."""
        self.lives[site.name] = Life(site.name, site.pid, site.send(0), is_whole)

    def note_kill(self, site: Site) -> None:
        life = self.lives.pop(site.name)
        life.is_whole, life.is_killed = False, True
        self._ended.append(life)

    # Faults

    @contextlib.contextmanager
    def fails(self, fault: str) -> Iterator[None]:
        """Let the engine fail."""
        began = now()
        with self.engine.fail(fault):
            yield
        self.faults.append(Fault(fault, began, now(), fault == "cut", fault in self.engine.lossy))

    def await_leader(self) -> None:
        """Wait until some process leads from now on."""
        since = now()
        self.journal.await_that(
            lambda: any(note.values["since"] > since for note in self.journal.notes("acts")), "leader"
        )

    def leader(self) -> tuple[Note, psutil.Process]:
        """Wait until some process leads; return its note, and the process."""
        self.await_leader()
        while (process := self.last_leader()) is None:  # it has ended since
            self.await_leader()
        return self.journal.notes("leads", pid=process.pid)[-1], process

    def last_leader(self) -> psutil.Process | None:
        """Return the process that was elected last, unless it has ended."""
        last = self.journal.notes("leads")[-1]
        running = self.fleet.site_of(last).running
        return next((process for process in running.members() if process.pid == last.pid), None)

    # Accounts

    def settle(self) -> None:
        """Send messages until all have arrived, or are counted as lost."""
        deadline = time.monotonic() + 2 * DEADLINE
        while missing := [site.name for site in self.sites if not self._has_last_of(site)]:
            text = f"The last messages of {missing} have not arrived."
            assert time.monotonic() < deadline, text

    def _has_last_of(self, site: Site) -> bool:
        sender = site.send(1)
        number = len(self.journal.notes("sent", sender=sender))
        pids = {life.pid for life in self.lives.values()}
        until = time.monotonic() + self.fleet.lease
        while time.monotonic() < until:
            notes = self.journal.notes("received", sender=sender, number=number)
            if pids <= {note.pid for note in notes}:
                return True
            time.sleep(0.02)
        return False

    def tally(self) -> Tally:
        lives = [*self._ended, *self.lives.values()]
        return Tally(self.journal, self.faults, lives, self.began, now(), self.interval)
