"""Random faults of the engine, of the ways to it, and of the processes, in a fleet of three sites.

    python -m tests.fleet.chaos --engine redis --seconds 1800 --seed 7

It prints each fault, and figures at the end, and fails if a promise of the fleet was broken. The seed decides
on the faults and their lengths.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import psutil

from ..processes import DEADLINE
from .failing import ENGINES
from .failing_fleet import FailingFleet, now
from .fleet_of_sites import Site
from .tally import Fault

SITES, LEASE, INTERVAL = 3, 2.0, 1.0

LONGEST, LONGEST_PAUSE = 2.5 * LEASE, 1.5 * LEASE
"""Seconds of the longest fault, and of the longest time between two."""

OF_PROCESSES = ("leader killed", "leader stopped", "site killed", "site stopped", "site cut off", "reload")
"""The faults that are not of the engine, and as frequent as those."""

MOST_WITHOUT_LEADER = 3 * LEASE + DEADLINE
"""Seconds that only a fleet that hangs would exceed, on a machine that is busy."""


class Load(threading.Thread):
    """Requests to a site that broadcast, while its process is not made to fail."""

    def __init__(self, site: Site, seed: int) -> None:
        super().__init__(name=f"Load of {site.name}", daemon=True)
        self.site = site
        self.may_ask = threading.Lock()
        self.longest = 0.0
        """Seconds of the longest request."""
        self.requests = 0
        self.failures: list[str] = []
        self._random = random.Random(seed)
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(self._random.uniform(0.1, 0.9)):
            with self.may_ask:
                self.send(self._random.randint(1, 3))

    def send(self, count: int) -> None:
        began = time.monotonic()
        try:
            self.site.send(count)
        except (OSError, AssertionError) as error:
            self.failures.append(f"{now():.3f} {self.site.name}: {error!r}")
        self.requests += 1
        self.longest = max(self.longest, time.monotonic() - began)

    def end(self) -> None:
        self._is_over.set()
        self.join()


@dataclass
class Size:
    """What a site process holds; it must not grow."""

    megabytes: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Self:
        process = psutil.Process(pid)
        memory = process.memory_info().rss / 2**20
        return cls(round(memory, 1), process.num_threads(), process.num_fds())


@dataclass
class Result:
    """The figures of a run, and the promises that were broken."""

    figures: dict[str, Any]
    problems: list[str] = field(default_factory=list)


class Chaos:
    """A fleet in which something fails again and again."""

    def __init__(self, failing: FailingFleet, seed: int) -> None:
        self.failing = failing
        self.journal = failing.journal
        self.random = random.Random(seed)
        self.loads = {site.name: Load(site, self.random.randrange(2**32)) for site in failing.sites}

    def run(self, seconds: float) -> Result:
        until, sizes = now() + seconds, self._sizes()
        for load in self.loads.values():
            load.start()
        while now() < until:
            time.sleep(self.random.uniform(0, LONGEST_PAUSE))
            self._fail()
            if len(self.failing.faults) % 4 == 0:
                self.failing.await_leader()
        self.failing.await_leader()
        for load in self.loads.values():
            load.end()
        self.failing.settle()
        return self._result(sizes)

    def _sizes(self) -> dict[str, Size]:
        return {name: Size.of(life.pid) for name, life in self.failing.lives.items()}

    def _result(self, before: dict[str, Size]) -> Result:
        tally = self.failing.tally()
        tally.check_leaders()
        without, since = tally.longest_without_leader()
        if without > MOST_WITHOUT_LEADER:
            tally.problems.append(f"No process led for {without:.1f} s from {since:.3f} on.")
        loads = list(self.loads.values())
        tally.problems += [failure for load in loads for failure in load.failures]
        sizes = self._sizes()
        tally.problems += [
            f"The site {name} grows: {before[name]}, {size}"
            for name, size in sizes.items()
            if size.threads > before[name].threads + 8 or size.descriptors > before[name].descriptors + 16
        ]
        figures = {
            "seconds": round(tally.ended - tally.began),
            "faults": _counted(tally.faults),
            "elections": tally.elections(),
            "longest seconds without a leader": round(without, 2),
            "messages": tally.messages(),
            "ticks": tally.ticks(),
            "requests": sum(load.requests for load in loads),
            "longest request": round(max(load.longest for load in loads), 2),
            "sizes before": {name: asdict(size) for name, size in before.items()},
            "sizes after": {name: asdict(size) for name, size in sizes.items()},
        }
        return Result(figures, tally.problems)

    # Faults

    def _fail(self) -> None:
        """Let something fail for a while."""
        began, length = now(), self.random.uniform(0.1, LONGEST)
        if self.random.random() < 0.5:
            name = self.random.choice(self.failing.engine.faults)
            context = self.failing.fails(name)
        else:
            name = self.random.choice(OF_PROCESSES)
            context = self._fails(name, self.random.choice(self.failing.sites))
        with context:
            time.sleep(length if name not in ("cut", "reload") else 0)
        print(f"{began:.3f} {name}, {now() - began:.1f} s", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _fails(self, name: str, site: Site) -> Iterator[None]:
        """Let a process fail, or the way of a site."""
        began = now()
        with getattr(self, "_" + name.replace(" ", "_"))(site):
            yield
        self.failing.faults.append(Fault(name, began, now(), reaches_engine=True))

    @contextlib.contextmanager
    def _leader_killed(self, site: Site) -> Iterator[None]:
        if (process := self.failing.last_leader()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        yield

    @contextlib.contextmanager
    def _leader_stopped(self, site: Site) -> Iterator[None]:
        process = self.failing.last_leader()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        yield
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def _site_stopped(self, site: Site) -> Iterator[None]:
        with self.loads[site.name].may_ask:
            os.kill(site.pid, signal.SIGSTOP)
            yield
            os.kill(site.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def _site_killed(self, site: Site) -> Iterator[None]:
        with self.loads[site.name].may_ask:
            site.running.kill()
            self.failing.note_kill(site)
            yield
            self.failing.fleet.start(site)
            self.failing.note_start(site, is_whole=False)

    @contextlib.contextmanager
    def _site_cut_off(self, site: Site) -> Iterator[None]:
        with self.failing.engine.ways[self.failing.sites.index(site)].blocked():
            yield

    @contextlib.contextmanager
    def _reload(self, site: Site) -> Iterator[None]:
        os.kill(site.pid, signal.SIGUSR1)
        yield


def _counted(faults: list[Fault]) -> dict[str, int]:
    names = [fault.name for fault in faults]
    return {name: names.count(name) for name in sorted(set(names))}


def run(engine: str, seconds: float, seed: int) -> Result:
    with FailingFleet(engine, SITES, LEASE, INTERVAL) as failing:
        return Chaos(failing, seed).run(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, default="redis")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    options = parser.parse_args()
    print(f"Engine {options.engine}, seed {options.seed}.", flush=True)
    result = run(options.engine, options.seconds, options.seed)
    print(json.dumps(result.figures, indent=2))
    for problem in result.problems:
        print(f"BROKEN: {problem}")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
