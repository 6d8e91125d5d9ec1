"""A clock that jumps: no decision of a site depends on the time of day."""

from __future__ import annotations

import ast
import signal
import time
from pathlib import Path

import pytest

import django_wspbus
from tests.projects import Project
from tests.servers.conftest import KINDS, address_of, ask, configure
from tests.servers.load import await_that, pids

PACKAGE = Path(django_wspbus.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

SHOWN = {
    "command/jobs.py": {"time.localtime", "time.strftime"},
    "command/results.py": {"time.localtime", "time.strftime"},
    "command/run.py": {"time.strftime"},
    "process/log_memory.py": {"time.time"},
    "servers/gunicorn/logging.py": {"time.strftime"},
    "site/log.py": {"time.strftime"},
    "site/observing/log_store.py": {"time.time"},
}
"""Files that show people the time of day, and the calls."""

DUE = {
    "fleet/election.py": {"time.clock_gettime"},  # CLOCK_BOOTTIME
    "fleet/local.py": {"time.time"},
    "fleet/transaction.py": {"time.time"},
    "process/alone.py": {"time.time_ns"},  # a token
}
"""Files in which a job is due, or a message is dated, by the time of day of the engine, and the calls."""

COMPARES_FILES = ("development/", "plugins/autoreload.py")
"""Parts of development, which compare the times of files with those of boots and requests."""

DAY = 86400

OF_THE_DAY = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime"),
    *("time.clock_gettime", "datetime.now", "datetime.today", "datetime.utcnow", "timezone.now"),
}


def calls_of(tree: ast.AST) -> set[str]:
    """Return the calls of a module that are written as name.attribute."""
    return {
        f"{node.func.value.id}.{node.func.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
    }


def calls_and_imports_of(tree: ast.AST) -> set[str]:
    """Return the calls and the imported names of a module, as module.name."""
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return calls_of(tree) | imported


def test_the_time_of_day_is_only_shown() -> None:
    trees = {str(file.relative_to(PACKAGE)): ast.parse(file.read_text()) for file in FILES}
    found = {
        name: calls_and_imports_of(tree) & OF_THE_DAY
        for name, tree in trees.items()
        if not name.startswith(COMPARES_FILES)
    }
    assert {name: calls for name, calls in found.items() if calls} == {**SHOWN, **DUE}


# A clock that the system shows to one program cannot jump: there are no namespaces of CLOCK_REALTIME.
JUMPING = """\
import time
from pathlib import Path

CLOCK = Path(__file__).parent / "clock"
true, true_ns = time.time, time.time_ns
time.time = lambda: true() + int(CLOCK.read_text())
time.time_ns = lambda: true_ns() + int(CLOCK.read_text()) * 10**9
"""


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["gthread", "sync", "threaded"])
def test_a_site_serves_reloads_and_exits_while_its_clock_jumps(project: Project, kind: str) -> None:
    project.write("shop/listeners.py", "")
    urls = (project.root / "shop/urls.py").read_text()
    project.write(
        "shop/urls.py",
        urls + "import time\nurlpatterns.append(path('time/', lambda request: "
        "HttpResponse(str(time.time()))))\n",
    )
    project.write("sitecustomize.py", JUMPING)
    clock = project.write("clock", "0")
    server = KINDS[kind]
    if kind != "threaded":
        server = {**server, "OPTIONS": {**server["OPTIONS"], "timeout": 10}}
    configure(project, {"default": server})
    with project.serve("-v2", PYTHONPATH=str(project.root)) as site:
        address = address_of(site)
        for jump in (2 * DAY, -400 * DAY):
            before = pids(site)
            clock.with_name("new").write_text(str(jump))
            clock.with_name("new").rename(clock)  # in one step, as every process reads it at any time
            assert abs(float(ask(address, "/time/")[1]) - time.time() - jump) < DAY
            assert [ask(address)[0] for _ in range(20)] == [200] * 20
            assert pids(site) == before
            site.send(signal.SIGUSR1)
            if kind != "threaded":
                await_that(lambda before=before: before & pids(site) == {site.pid}, site.members)
                await_that(lambda before=before: len(pids(site)) == len(before), site.members)
        site.send(signal.SIGUSR2)
        site.wait_for_line("^Quit with", count=2)
        assert ask(address)[0] == 200
        assert site.stop() == 0
