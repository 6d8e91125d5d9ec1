"""The cost of a reload: failed requests, delays, memory, and the state after a broken deployment."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.processes import free_port

from .clients import Load, Request
from .measure import table
from .rivals import RIVALS, Rival, Served
from .serving import await_answer
from .sessions import Memory, session
from .shop import NEW, OLD, THREADS, WORKERS, deploy, project

MARGIN = 1.5
"""Seconds of load before and after a reload, longer than any page takes."""
BROKEN = 9.0
"""Seconds of a broken deployment, without the margins; granian takes 7 to replace two workers."""
DEADLINE = 10.0
"""Seconds, plus two boots, for the new code to answer first, and again for the old code to answer last."""


@dataclass(frozen=True)
class Scenario:
    title: str
    boot: float = 0
    broken: str = ""


SCENARIOS = {
    "good": Scenario("A reload"),
    "slow": Scenario("A reload of a project that takes 3 s more to boot", boot=3),
    "models": Scenario("A reload of a project with a syntax error in models.py", broken="models"),
    "views": Scenario("A reload of a project with a syntax error in views.py", broken="views"),
}


class Result:
    """One reload of one rival, from its clients' view."""

    def __init__(self, requests: list[Request], reloaded: float, memory: tuple[float, float, float]) -> None:
        self.requests = requests
        self.reloaded = reloaded
        self.memory = memory
        self.before = [request for request in requests if request.ended < reloaded]
        self.since = [request for request in requests if request.ended >= reloaded]
        # Requests of the slow page may still wait for an answer at the end of the load.
        self.end = max(request.ended for request in requests if request.path == "/")
        self.last = [request for request in self.since if request.ended >= self.end - MARGIN]

    @property
    def first_new(self) -> float | None:
        times = [request.ended for request in answered(self.since) if request.version == NEW]
        return min(times) - self.reloaded if times else None

    @property
    def outage(self) -> float:
        """The longest time in which no client got an answer from the fast page."""
        times = sorted(request.ended for request in answered(self.since) if request.path == "/")
        moments = [self.reloaded, *times, self.end]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    @property
    def mixed(self) -> list[Request]:
        return [request for request in answered(self.since) if request.version not in (OLD, NEW)]

    @property
    def last_old(self) -> float:
        """The time at which the old version began its last request, and not that of its answer."""
        times = [request.began + request.delay for request in answered(self.since) if request.version == OLD]
        return max(times) - self.reloaded if times else 0


def answered(requests: Iterable[Request]) -> list[Request]:
    return [request for request in requests if request.outcome == "200"]


def run(
    rounds: int = 1, only: Collection[str] = tuple(RIVALS), scenarios: Collection[str] = tuple(SCENARIOS)
) -> None:
    """Reload the rivals in turn, scenario by scenario; print a table of each, and one of memory."""
    memory: dict[str, list[str]] = {}
    measured = []
    for scenario in (SCENARIOS[name] for name in scenarios):
        results = measure_all(scenario, rounds, only)
        report = report_broken if scenario.broken else report_good
        report(f"{scenario.title}, {WORKERS} workers of {THREADS} threads; {UNITS}", results)
        if not scenario.broken:
            measured.append(scenario)
            for name, ones in results.items():
                memory.setdefault(name, []).extend(memory_cells(ones))
    if measured:
        moments = ("before", "peak", "after")
        columns = [f"{moment}, + {scenario.boot:g} s" for scenario in measured for moment in moments]
        table("Memory at a reload, PSS of all processes, MB", columns, memory)


def measure_all(scenario: Scenario, rounds: int, only: Collection[str]) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {name: [] for name in only}
    for _ in range(rounds):
        for name in only:
            if RIVALS[name].is_installed:
                try:
                    results[name].append(measure(RIVALS[name], scenario))
                except (RuntimeError, TimeoutError) as error:  # measure the other rivals nevertheless
                    print(f"{name}: {error}", file=sys.stderr)
    return results


def measure(rival: Rival, scenario: Scenario) -> Result:
    port = free_port()
    with project() as folder:
        # Some of these commands do not import modules from the working directory.
        environment = {
            "SHOP_PORT": str(port),
            "PYTHONPATH": f"{folder}:{Path.cwd()}",
            "PYTHONDONTWRITEBYTECODE": "1",  # two versions of a file may have the same second and size
        }
        with session(rival.command(port), folder, environment) as process:
            await_answer(process, port, time.perf_counter() + 60)
            with Load(port) as load, Memory(process.pid) as memory:
                reloaded = reload(rival, scenario, Served(process, folder, load))
                requests = load.finish()
    return Result(requests, reloaded, memory.before_peak_after(reloaded))


def reload(rival: Rival, scenario: Scenario, served: Served) -> float:
    """Deploy and reload under load, with a margin before and after; return the time of the reload."""
    load = served.load
    load.follow(time.monotonic() + MARGIN)
    deploy(served.folder, NEW, boot=scenario.boot, broken=scenario.broken)
    reloaded = time.monotonic()
    rival.reload(served, scenario.boot)
    if scenario.broken:
        load.follow(reloaded + BROKEN + MARGIN)
        return reloaded
    timeout = DEADLINE + 2 * scenario.boot  # two, because some servers boot their workers one after the other
    if load.follow(reloaded + timeout, lambda: NEW in load.answered):
        load.follow(time.monotonic() + timeout, lambda: is_past(load, OLD))
    return reloaded


def is_past(load: Load, version: str) -> bool:
    """Return whether a version has not answered for `MARGIN` seconds, while others have."""
    return max(load.answered.values()) - load.answered.get(version, 0) > MARGIN


# Tables

COMMON = ["requests", "failed", "slowest before", "slowest since", "longest outage"]
UNITS = "slowest in ms beyond the usual, times in seconds from the signal"


def report_good(title: str, results: dict[str, list[Result]]) -> None:
    columns = [*COMMON, "first new", "last old", "mixed"]
    rows = {name: [*common_cells(name, ones), *good_cells(ones)] for name, ones in results.items()}
    table(title, columns, rows)


def report_broken(title: str, results: dict[str, list[Result]]) -> None:
    columns = [*COMMON, "200s since", "in the end"]
    rows = {name: [*common_cells(name, ones), *broken_cells(ones)] for name, ones in results.items()}
    table(title, columns, rows)


def common_cells(name: str, results: list[Result]) -> list[str]:
    if not results:
        return ["did not start" if RIVALS[name].is_installed else "not installed", "", "", "", ""]
    requests = [request for result in results for request in result.requests]
    before = [request for result in results for request in result.before]
    since = [request for result in results for request in result.since]
    outage = f"{max(result.outage for result in results):.2f}"
    return [str(len(requests)), failures(requests), slowest(before), slowest(since), outage]


def failures(requests: list[Request]) -> str:
    kinds = Counter(request.outcome for request in requests if request.outcome != "200")
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{kinds.total()}: {listed}" if kinds else "0"


def slowest(requests: list[Request]) -> str:
    delays = [request.delay for request in answered(requests)]
    return f"{max(delays) * 1000:.0f}" if delays else ""


def good_cells(results: list[Result]) -> list[str]:
    if not results:
        return ["", "", ""]
    mixed = str(sum(len(result.mixed) for result in results))
    first = [result.first_new for result in results if result.first_new is not None]
    if len(first) < len(results):
        return ["not reloaded", "", mixed]
    last = [result.last_old for result in results]
    return [f"{statistics.median(first):.2f}", f"{statistics.median(last):.2f}", mixed]


def broken_cells(results: list[Result]) -> list[str]:
    since = [request for result in results for request in result.since]
    share = [f"{100 * len(answered(since)) / len(since):.1f} %"] if since else [""]
    return [*share, ", ".join(dict.fromkeys(ending(result.last) for result in results))]


def ending(requests: list[Request]) -> str:
    statuses = {request.outcome for request in requests if request.outcome.isdigit()}
    if not statuses:
        return "site down"
    return "serves" if statuses == {"200"} else f"answers {' and '.join(sorted(statuses))}"


def memory_cells(results: list[Result]) -> list[str]:
    moments = list(zip(*(result.memory for result in results), strict=True))
    return [f"{statistics.median(values):.0f}" for values in moments] or ["", "", ""]
