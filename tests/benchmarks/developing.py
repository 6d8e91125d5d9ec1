"""The cost of a save in development: the time until the page shows it, and the failed requests meanwhile.

One server runs at a time, for a block of three edits, and the blocks of all servers make a round. So other
load on the machine affects all servers alike, and no server is measured while another polls or keeps a spare.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import free_port

from . import idling
from .editors import DEADLINE, Edit, Editor
from .large_project import large_project, missing
from .measure import table
from .serving import await_answer
from .sessions import session
from .small_project import Project, small_project
from .watchers import OF_THE_LARGE, OURS, WATCHERS, Watcher, versions

EDITS = 3
"""Edits of a block."""
FLOOR = "the floor"
PHASE = re.compile(r"reload phase (\S+) ([\d.]+)")
"""A line that a site may print at a reload: the name of a phase, and its seconds."""


@dataclass(frozen=True)
class Scenario:
    title: str
    project: Callable[[], AbstractContextManager[Project]]
    watchers: Collection[str]
    pause: float
    """Seconds between two edits, for the server to finish its work in the background."""


SCENARIOS = {
    "small": Scenario("A small project", small_project, list(WATCHERS), pause=2.0),
    "large": Scenario("A large project", large_project, OF_THE_LARGE, pause=5.0),
}
IDLE = "idle"
CHOICES = [*SCENARIOS, IDLE]


@dataclass
class Result:
    """The edits of one server, and the phases of reloads that its log names."""

    edits: list[Edit] = field(default_factory=list)
    phases: dict[str, list[float]] = field(default_factory=dict)

    @property
    def seconds(self) -> list[float]:
        return [edit.seconds for edit in self.edits if edit.seconds is not None]

    def read(self, log: Path) -> None:
        for name, seconds in PHASE.findall(log.read_text(errors="replace")):
            self.phases.setdefault(name, []).append(float(seconds))


def run(
    rounds: int = 3, only: Collection[str] | None = None, scenarios: Collection[str] = tuple(CHOICES)
) -> None:
    """Edit the projects under each server in turn, then measure each server idle; print tables of both."""
    print(f"\n{', '.join(versions())}.")
    for scenario in (SCENARIOS[name] for name in scenarios if name in SCENARIOS):
        if scenario.project is large_project and missing():
            print(f"\n{scenario.title}: not measured, without {', '.join(missing())}.")
            continue
        names = scenario.watchers if only is None else only
        with scenario.project() as project:
            results, floors = measure_all(scenario, project, rounds, names)
        report(scenario.title, results, floors)
    if IDLE in scenarios:
        with small_project() as project:
            names = list(WATCHERS) if only is None else only
            idling.measure_all(names, lambda watcher: serve(watcher, project))


def measure_all(
    scenario: Scenario, project: Project, rounds: int, names: Collection[str]
) -> tuple[dict[str, Result], dict[str, list[float]]]:
    results = {name: Result() for name in names}
    floors: dict[str, list[float]] = {}
    editor = Editor(project.module)
    boot(project.folder)  # compiles the bytecode
    for _ in range(rounds):
        for phases in [boot(project.folder) for _ in range(EDITS)]:
            for phase, seconds in phases.items():
                floors.setdefault(phase, []).append(seconds)
        for name in names:
            if WATCHERS[name].is_installed:
                try:
                    measure_block(WATCHERS[name], project, editor, scenario.pause, results[name])
                except (RuntimeError, TimeoutError) as error:  # measure the other servers nevertheless
                    print(f"{name}: {error}", file=sys.stderr)
    return results, floors


def measure_block(watcher: Watcher, project: Project, editor: Editor, pause: float, result: Result) -> None:
    with serve(watcher, project) as served:
        for index in range(EDITS):
            # Some servers poll once a second, so the edits of a block fall on different parts of a second.
            phase = (index + random.random()) / EDITS
            result.edits.append(editor.edit(served.port, pause + phase))
            if result.edits[-1].first_new is None:
                break  # once a server has missed an edit, the next one shows nothing about it
        result.read(served.log)


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[bytes]
    port: int
    log: Path


@contextlib.contextmanager
def serve(watcher: Watcher, project: Project) -> Iterator[Served]:
    """Serve a project. The log is outside of it, because some servers watch every file in its folder."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        log = Path(name, "log")
        shadows = Path(name, "shadows")
        shadows.mkdir()
        environment = watcher.environment(project.folder, port, shadows)
        with (
            log.open("wb") as output,
            session(watcher.command(port), project.folder, environment, output) as process,
        ):
            try:
                await_answer(process, port, time.perf_counter() + 60)
            except (RuntimeError, TimeoutError) as error:
                raise RuntimeError(f"{error} It said:\n{log.read_text(errors='replace')[-2000:]}") from None
            yield Served(process, port, log)


# The floor: the work of every server before it can answer

BOOT = """
import time

def report(name):
    print(name, time.monotonic())

report("interpreter")
import django
django.setup()
report("setup")
from django.urls import get_resolver
get_resolver().url_patterns
report("URLconf")
from django.core.checks import run_checks
run_checks()
report("checks")
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
executor = MigrationExecutor(connection)
executor.migration_plan(executor.loader.graph.leaf_nodes())
report("migrations")
"""


def boot(folder: Path) -> dict[str, float]:
    """Set up the project in a new interpreter; return the seconds of each phase, and the floor."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "desk.settings"}
    command = [sys.executable, "-c", BOOT]
    began = earlier = time.monotonic()
    text = subprocess.run(
        command, cwd=folder, env=environment, check=True, timeout=60, stdout=subprocess.PIPE, text=True
    ).stdout
    phases = {}
    for name, moment in map(str.split, text.splitlines()):
        phases[name] = float(moment) - earlier
        earlier = float(moment)
        if name == "URLconf":
            phases[FLOOR] = earlier - began
    return phases


# Tables


def report(title: str, results: dict[str, Result], floors: dict[str, list[float]]) -> None:
    ours = results[OURS].seconds if OURS in results else []
    rows = {name: edit_cells(name, result, ours) for name, result in results.items()}
    floor = floors.pop(FLOOR)
    rows[FLOOR] = ["", *spread(floor), ratio(floor, ours), "", ""]
    columns = ["edits", "median", "lowest", "highest", "ratio", "failed per edit", "old after new"]
    table(f"{title}: from a save to the first answer that shows it, seconds", columns, rows)

    shown = {name: result for name, result in results.items() if result.seconds}
    rows = {name: moment_cells(result) for name, result in shown.items()}
    table(f"{title}: where the time goes, seconds", ["old code answers until", "new code answers at"], rows)
    cells = {"": [f"{statistics.median(values):.3f}" for values in floors.values()]}
    table(f"{title}: what a boot is made of, seconds", list(floors), cells)
    report_phases(title, results)


def edit_cells(name: str, result: Result, ours: list[float]) -> list[str]:
    if not result.edits:
        return ["did not start" if WATCHERS[name].is_installed else "not installed", *[""] * 6]
    edits, seconds = result.edits, result.seconds
    count = str(len(edits)) if len(seconds) == len(edits) else f"{len(seconds)} of {len(edits)}"
    if not seconds:
        return [f"none shows in {DEADLINE:g} s", *[""] * 4, failures(edits), ""]
    stale = str(sum(len(edit.stale) for edit in edits))
    return [count, *spread(seconds), ratio(seconds, ours), failures(edits), stale]


def spread(seconds: list[float]) -> list[str]:
    return [f"{number:.2f}" for number in (statistics.median(seconds), min(seconds), max(seconds))]


def ratio(seconds: list[float], ours: list[float]) -> str:
    return f"{statistics.median(seconds) / statistics.median(ours):.1f}" if ours else ""


def failures(edits: list[Edit]) -> str:
    """Describe the failed requests per edit, by kind of failure."""
    kinds = Counter(request.outcome for edit in edits for request in edit.failed)
    listed = ", ".join(f"{count / len(edits):.1f} {kind}" for kind, count in kinds.most_common())
    return f"{kinds.total() / len(edits):.1f}: {listed}" if kinds else "0"


def moment_cells(result: Result) -> list[str]:
    old = [edit.last_old for edit in result.edits if edit.seconds is not None]
    return [f"{statistics.median(old):.2f}", f"{statistics.median(result.seconds):.2f}"]


def report_phases(title: str, results: dict[str, Result]) -> None:
    phased = {name: result.phases for name, result in results.items() if result.phases}
    columns = list(dict.fromkeys(phase for phases in phased.values() for phase in phases))
    rows = {
        name: [f"{statistics.median(phases[phase]):.3f}" if phase in phases else "" for phase in columns]
        for name, phases in phased.items()
    }
    if rows:
        table(f"{title}: the phases that the site names, seconds", columns, rows)
