"""The warm spare becomes the next site where it is as good as a new interpreter, and only there."""

from __future__ import annotations

import os
import signal
import sys
import time
from operator import le
from pathlib import Path

import psutil
import pytest

from tests.processes import RunningSite, wakeups
from tests.servers.conftest import ask
from tests.servers.load import await_that

from .reloading import GUNICORN, THREADED, Development, Served, evaluate

NOTE = """
import os
from pathlib import Path

with open(os.environ["IMPORTS"], "a") as file:
    file.write(f"{os.getpid()} {__name__}\\n")
"""

LIBRARIES = {
    "lib_plain": "PLAIN = 1\n",
    "lib_settings": "from django.conf import settings\n\nDEBUG = getattr(settings, 'DEBUG', None)\n",
    "lib_other": "",
}


PATCHED = """
import sys
import types

monkey = sys.modules["gevent.monkey"] = types.ModuleType("gevent.monkey")
monkey.saved = {"socket": {}}
"""


class Libraries:
    """Libraries that the project imports, in a folder that is one of packages to the interpreter."""

    def __init__(self, development: Development, tmp_path: Path, **sources: str) -> None:
        base = tmp_path / "base"
        self.imports = tmp_path / "imports.txt"
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.folder = base / "lib" / version / "site-packages"
        self.folder.mkdir(parents=True)
        self.environment = {
            "PYTHONUSERBASE": str(base),
            "PYTHONPATH": str(self.folder),
            "IMPORTS": str(self.imports),
        }
        for name, source in sources.items():
            (self.folder / f"{name}.py").write_text(f"{NOTE}{source}")
        development.append("shop/listeners.py", "".join(f"import {name}  # noqa\n" for name in sources))

    def importers(self, name: str) -> set[int]:
        """Return the PIDs of the processes that have imported a library."""
        lines = [line.split() for line in self.imports.read_text().splitlines()]
        return {int(pid) for pid, module in lines if module == name}


@pytest.mark.extended
def test_the_spare_has_imported_what_preload_names_but_for_what_reads_the_settings(development, tmp_path):
    development.set_up(spare=True, autoreload={"PRELOAD": ["lib_plain", "lib_settings"]})
    libraries = Libraries(development, tmp_path, **LIBRARIES)
    with development.served(**libraries.environment) as served:
        served.site.wait_for_line("^Warm spare does without 'lib_settings' of PRELOAD: it reads the settings")
        spare = served.await_spare()
        assert spare in libraries.importers("lib_plain")
        assert spare not in libraries.importers("lib_settings") | libraries.importers("lib_other")
        served.expect_version(development.edit())
        served.await_reload()
        assert development.notes("site start")[-1].pid == spare
        assert served.evaluate("from lib_settings import DEBUG as result") is True
        # A package is installed anew: the spare has the old one.
        spare = served.await_spare()
        with (libraries.folder / "lib_plain.py").open("a") as file:
            file.write("PLAIN = 2\n")
        served.await_reload()
        assert served.evaluate("from lib_plain import PLAIN as result") == 2
        assert development.notes("site start")[-1].pid != spare
        await_that(lambda: not psutil.pid_exists(spare))


@pytest.mark.extended
def test_there_is_no_spare_where_a_library_has_patched_others(development, tmp_path):
    development.set_up(spare=True)
    libraries = Libraries(development, tmp_path, lib_gevent=PATCHED)
    with development.served(**libraries.environment) as served:
        served.site.wait_for_line("^Warm spare disabled: gevent has patched the standard library")
        served.await_calm()
        assert served.spares() == []
        served.expect_version(development.edit())


@pytest.mark.extended
def test_an_edit_that_replaces_the_logger_class_is_served_from_a_new_interpreter(development):
    development.set_up(spare=True)
    class_of_django = "import logging; result = type(logging.getLogger('django.request')).__name__"
    with development.served() as served:
        spare = served.await_spare()
        development.append(
            "settings.py", "import logging\n\nlogging.setLoggerClass(type('Own', (logging.Logger,), {}))\n"
        )
        served.site.wait_for_line("^Warm spare disabled: the project replaces the logger class")
        await_that(lambda: served.evaluate(class_of_django) == "Own")
        assert development.notes("site start")[-1].pid != spare


@pytest.mark.extended
def test_a_prepared_spare_becomes_the_site_and_where_it_was_killed_a_new_interpreter_does(development):
    development.set_up(GUNICORN, spare=True)
    with development.served() as served:
        first = served.await_spare()
        served.expect_version(development.edit())
        assert development.notes("site start")[-1].pid == first
        served.await_reload()
        second = served.await_spare()
        os.kill(second, signal.SIGKILL)
        await_that(lambda: not psutil.pid_exists(second))
        served.expect_version(development.edit())
        served.site.wait_for_line("^Warm spare disabled: it was killed by SIGKILL")
        assert development.notes("site start")[-1].pid != second
        served.await_reload()
        assert served.await_spare() != second


@pytest.mark.extended
def test_many_reloads_leave_nothing_behind(development):
    development.set_up(spare=True)
    with development.served() as served:
        launcher = psutil.Process(served.site.pid)
        sizes, descriptors = [], []

        def count_descriptors():
            return launcher.num_fds(), served.child.num_fds()

        for _ in range(6):
            served.expect_version(development.edit())
            served.await_reload()
            served.await_calm()
            served.await_spare()
            sizes.append((launcher.memory_info().rss, served.child.memory_info().rss))
            descriptors.append(count_descriptors())
        assert sizes[-1][0] - sizes[2][0] < 1_000_000, sizes
        assert sizes[-1][1] - sizes[2][1] < 5_000_000, sizes
        # The last request may take a moment to close its connection.
        await_that(lambda: all(map(le, count_descriptors(), descriptors[2])), lambda: descriptors)
        assert len(launcher.children()) == 2


# Idle


@pytest.mark.extended
@pytest.mark.parametrize(
    ("server", "is_polling"),
    [
        (THREADED, False),
        pytest.param(THREADED, True, marks=pytest.mark.extended),
        pytest.param(GUNICORN, False, marks=pytest.mark.extended),
    ],
    ids=["inotify", "polling", "gunicorn"],
)
def test_without_saves_and_requests_all_processes_sleep(development, server, is_polling):
    development.set_up(server, spare=True, autoreload={"POLL": is_polling})
    with development.served() as served:
        served.version()
        pids = [served.site.pid, served.await_spare(), served.child.pid]
        most = [20 if is_polling else 2, 2, 5]

        def is_idle():  # at the latest, once what the start has begun is done
            before = list(map(wakeups, pids))
            time.sleep(3)
            counts.append([now - then for now, then in zip(map(wakeups, pids), before, strict=True)])
            return all(count <= limit for count, limit in zip(counts[-1], most, strict=True))

        counts = []
        await_that(is_idle, lambda: counts)


# What a view sees

LOOK = """
import os, sys, threading
main = sys.modules["__main__"]
result = {
    "argv": sys.argv,
    "path": sys.path,
    "flags": [str(each) for each in (sys.flags, sys.warnoptions, sys._xoptions)],
    "main": [main.__name__, getattr(main, "__file__", None), getattr(main.__spec__, "name", None)],
    "cwd": os.getcwd(),
    "environment": {k: v for k, v in os.environ.items() if k not in ("TEST_PROGRAM", "LINES", "COLUMNS")},
    "modules": sorted(name for name in list(sys.modules) if name.split(".")[0] in ("shop", "settings")),
    "hooks": [len(sys.meta_path), len(sys.path_hooks)],
    "streams": [sys.stdin.name, sys.stdout.name, sys.stderr.name],
    "is main thread": threading.current_thread() is threading.main_thread(),
    "file": [each for each in sys.modules["shop"].__path__],
}
"""

OPTIONS = ["-X", "dev", "-W", "error::UserWarning", "-B"]
MANAGE = ["manage.py", "runbus", "0", "--verbosity", "1"]
MODULE = [*OPTIONS, "-m", "django", "runbus", "--settings", "settings"]


def run(development, *arguments):
    site = RunningSite(env=development.environment, cwd=development.root)
    site.command = [sys.executable, *arguments]
    return site


@pytest.mark.extended
@pytest.mark.parametrize(
    "arguments", [MANAGE, pytest.param(MODULE, marks=pytest.mark.extended)], ids=["manage.py", "-m"]
)
def test_a_view_sees_what_runserver_would_show_it_with_the_spare_and_without(
    development, free_port, arguments
):
    found = {}
    for spare in (True, False):
        development.set_up(spare=spare)
        with run(development, *arguments) as site:
            served = Served(development, site)
            found["first", spare] = served.evaluate(LOOK)
            if spare:
                prepared = served.await_spare()
            served.expect_version(development.edit())
            served.await_reload()
            if spare:
                assert development.notes("site start")[-1].pid == prepared
            found["next", spare] = served.evaluate(LOOK)
            assert site.stop() == 0
    first = found.pop(("first", True))
    assert len(found) == 3
    for other in found.values():
        assert other == first

    port = str(free_port)
    where = arguments.index("runbus")
    other = [*arguments[:where], "runserver", port, *[each for each in arguments[where + 1 :] if each != "0"]]
    with run(development, *other) as site:
        site.wait_for_line("^Quit the server")
        address = f"127.0.0.1:{port}"

        await_that(lambda: answers(address))
        theirs = evaluate(address, LOOK)
    theirs["argv"] = theirs["argv"][:1]
    ours = {**first, "argv": first["argv"][:1]}
    assert ours == theirs


def answers(address):
    try:
        return ask(address, "/version/")[0] == 200
    except OSError:
        return False


@pytest.mark.extended
@pytest.mark.parametrize(
    ("options", "variables", "count"),
    [
        ({}, {"WEB_CONCURRENCY": "3"}, 1),
        pytest.param({"workers": 2}, {}, 2, marks=pytest.mark.extended),
    ],
    ids=["WEB_CONCURRENCY", "OPTIONS"],
)
def test_gunicorn_has_one_worker_unless_options_say_otherwise(development, options, variables, count):
    development.set_up({**GUNICORN, "OPTIONS": options})
    with development.served(**variables):
        development.expect_note("worker start", count)
    assert len(development.notes("worker start")) == len(development.notes("worker stop")) == count
