"""The resources of a site while the same event is repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil

from tests.processes import RunningSite

from .conftest import KINDS, address_of, ask, configure, descriptors
from .load import Shop, await_that, status_of

TIMES = 16
SETTLED = 6
"""Repetitions after which the site has created everything that it creates once."""

MEMORY = 2 << 20
"""Bytes by which a site process may grow after that."""


class Held(NamedTuple):
    """The resources of a site: descriptors and threads of its process and of the child; all processes."""

    descriptors: int
    threads: int
    of_child: int
    processes: int


class Endurance:
    """A running site of one server with two workers, for a repeated event."""

    def __init__(self, site: RunningSite) -> None:
        self.site = site
        self.address = address_of(site)
        self.process = psutil.Process(site.pid)

    def repeat(self, once: Callable[[int], None]) -> None:
        """Repeat the event `TIMES` times; assert that the site holds no more than after the first few."""
        held: list[Held] = []
        memory: list[int] = []
        for number in range(1, TIMES + 1):
            once(number)
            if number == SETTLED:
                held.append(self.settle())
                memory.append(self.process.memory_info().rss)
        await_that(lambda: self.holds_no_more_than(held[0]), lambda: (held[0], self.held()))
        memory.append(self.process.memory_info().rss)
        assert memory[1] - memory[0] < MEMORY, memory

    def settle(self) -> Held:
        """Wait until replaced processes have ended; return the resources then."""

        def is_settled() -> bool:
            server = status_of(self.address)["servers"]["default"]
            return len(server["workers"]) == 2 and server["leaving"] == [] and len(self.pids()) == 4

        await_that(is_settled, self.pids)
        return self.held()

    def holds_no_more_than(self, before: Held) -> bool:
        now = self.held()
        return now.processes == before.processes and all(
            one <= other for one, other in zip(now, before, strict=True)
        )

    def pids(self) -> list[int]:
        return [self.site.pid, *(child.pid for child in self.process.children(recursive=True))]

    def held(self) -> Held:
        pids = self.pids()
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            return Held(
                descriptors(self.site.pid), self.process.num_threads(), descriptors(pids[1]), len(pids)
            )
        return Held(0, 0, 0, 0)


@contextlib.contextmanager
def enduring(shop: Shop) -> Iterator[Endurance]:
    configure(shop, {"default": KINDS["gthread"]}, HEALTH="127.0.0.1:0")
    with shop.serve("-v2") as site:
        endurance = Endurance(site)
        assert ask(endurance.address)[0] == 200
        yield endurance
        assert site.stop() == 0
        assert site.members() == []
        assert "Traceback" not in site.output
