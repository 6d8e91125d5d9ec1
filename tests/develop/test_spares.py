"""The interpreter that waits to be the next site is used where it is as good as a new one, and only there."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.serving import free_port
from tests.processes import RunningSite
from tests.servers.conftest import ask
from tests.servers.load import await_that

from .reloading import GUNICORN, Development, Served, both_servers, both_ways, evaluate, sleeps, wakeups

NOTE = """
import os
from pathlib import Path

with open(os.environ["IMPORTS"], "a") as file:
    file.write(f"{os.getpid()} {__name__} {'django.conf' in sys.modules}\\n")
"""

LIBRARIES = {
    "lib_plain": "",
    "lib_settings": "from django.conf import settings\n\nDEBUG = getattr(settings, 'DEBUG', None)\n",
    "lib_guarded": """
try:
    from django.conf import settings
    DEBUG = settings.DEBUG
except Exception:
    DEBUG = None
""",
    "lib_environ": "MODE = os.environ.get('SHOP_MODE')\n",
    "lib_of_environ": "from lib_environ import MODE\n",
    "lib_over_that": "import lib_of_environ\nimport lib_guarded\n",
    "lib_variable": "os.environ['SHOP_LIBRARY'] = 'was here'\n",
}

SEEN = {"lib_settings.DEBUG": True, "lib_guarded.DEBUG": True, "lib_of_environ.MODE": "of the project"}
CODE = """
import sys
result = {{}}
for each in {names!r}:
    module, _, name = each.partition(".")
    result[each] = getattr(sys.modules[module], name)
"""


PATCHED = """
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
            (self.folder / f"{name}.py").write_text(f"import sys\n{NOTE}{source}")
        with (development.root / "shop/listeners.py").open("a") as file:
            file.writelines(f"import {name}  # noqa\n" for name in sources)

    def importers(self, name: str) -> set[int]:
        lines = [line.split() for line in self.imports.read_text().splitlines()]
        return {int(pid) for pid, module, _ in lines if module == name}


def test_what_would_be_another_thing_if_imported_early_is_not(development, tmp_path):
    development.set_up()
    with (development.root / "settings.py").open("a") as file:
        # As what reads .env does: what is in the environment stays.
        file.write("import os\n\nos.environ.setdefault('SHOP_MODE', 'of the project')\n")
    libraries = Libraries(development, tmp_path, **LIBRARIES)
    code = CODE.format(names=list(SEEN))
    with development.served(**libraries.environment) as served:
        assert served.evaluate(code) == SEEN
        for _ in range(2):
            spare = served.await_spare()
            assert spare in libraries.importers("lib_plain")
            # They were tried in one that was let go.
            for name in set(LIBRARIES) - {"lib_plain"}:
                assert spare not in libraries.importers(name)
            development.edit()
            served.await_reload()
            assert development.notes("site start")[-1].pid == spare
            assert served.evaluate(code) == SEEN
        settings = (development.root / "settings.py").read_text()
        served.await_spare()
        development.write("settings.py", settings.replace("of the project", "another"))
        served.await_reload()
        assert served.evaluate(code) == {**SEEN, "lib_of_environ.MODE": "another"}
        # A package is installed anew: what the spare has of it is what was.
        spare = served.await_spare()
        with (libraries.folder / "lib_plain.py").open("a") as file:
            file.write("PLAIN = 2\n")
        served.await_reload()
        assert served.evaluate("from lib_plain import PLAIN as result") == 2
        assert development.notes("site start")[-1].pid != spare
        assert not psutil.pid_exists(spare)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("lib_gevent", PATCHED),
        ("lib_thread", "from threading import *\nThread(target=Event().wait, daemon=True).start()\n"),
        ("lib_folder", "os.chdir('/')\n"),
    ],
)
def test_a_library_that_leaves_its_mark_is_not_in_the_spare_and_none_is_where_others_are_patched(
    name, source, development, tmp_path
):
    development.set_up()
    libraries = Libraries(development, tmp_path, **{name: source})
    with development.served(**libraries.environment) as served:
        for _ in range(2):
            if name == "lib_gevent":
                served.await_calm()
                assert served.spares() == []
                spare = None
            else:
                spare = served.await_spare()
                assert spare not in libraries.importers(name)
            version = development.edit()
            served.await_reload()
            served.expect_version(version)
            assert spare in (None, development.notes("site start")[-1].pid)


@both_servers
def test_a_prepared_spare_becomes_the_site_and_one_that_was_killed_is_replaced(development, server):
    development.set_up(server)
    with development.served() as served:
        first = served.await_spare()
        os.kill(first, signal.SIGKILL)
        await_that(lambda: not psutil.pid_exists(first))
        second = served.await_spare()
        assert second != first
        served.expect_version(development.edit())
        served.await_reload()
        assert development.notes("site start")[-1].pid == second
        assert served.await_spare() not in (first, second)


def test_no_spare_is_none(development):
    development.set_up(spare=False)
    with development.served() as served:
        served.await_calm()
        assert served.spares() == []


@both_ways
def test_many_reloads_leave_nothing_behind(development, spare):
    development.set_up(spare=spare)
    with development.served() as served:
        launcher = psutil.Process(served.site.pid)
        sizes, descriptors = [], []
        for _ in range(6):
            served.expect_version(development.edit())
            served.await_reload()
            served.await_calm()
            if spare:
                served.await_spare()
            sizes.append((launcher.memory_info().rss, served.child.memory_info().rss))
            descriptors.append((launcher.num_fds(), served.child.num_fds()))
        assert sizes[-1][0] - sizes[2][0] < 1_000_000, sizes
        assert sizes[-1][1] - sizes[2][1] < 5_000_000, sizes
        assert descriptors[2] == descriptors[-1], descriptors
        assert len(launcher.children()) == 1 + spare


# Idle


@pytest.mark.parametrize("kind", ["inotify", "polling", "gunicorn"])
def test_while_nobody_saves_or_asks_nobody_wakes_up(development, kind):
    development.set_up(*[GUNICORN] * (kind == "gunicorn"))
    if kind == "polling":
        with (development.root / "settings.py").open("a") as file:
            file.write("import sys\n\nsys.modules['inotify_simple'] = None\n")
    with development.served() as served:
        served.version()
        spare = served.await_spare()
        await_that(lambda: sleeps(served.child) or kind == "polling")
        pids = [served.site.pid, spare, served.child.pid]
        before = [wakeups(pid) for pid in pids]
        time.sleep(3)
        launcher, spare, child = (wakeups(pid) - count for pid, count in zip(pids, before, strict=True))
        assert launcher <= 2
        assert spare <= 2
        assert child <= (20 if kind == "polling" else 5)


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
    "modules": sorted(name for name in sys.modules if name.split(".")[0] in ("shop", "settings")),
    "hooks": [len(sys.meta_path), len(sys.path_hooks)],
    "streams": [sys.stdin.name, sys.stdout.name, sys.stderr.name],
    "is main thread": threading.current_thread() is threading.main_thread(),
    "file": [each for each in sys.modules["shop"].__path__],
}
"""

OPTIONS = ["-X", "dev", "-W", "error::UserWarning", "-B"]
COMMANDS = {
    "manage.py": ["manage.py", "runbus", "0", "--verbosity", "1"],
    "options": [*OPTIONS, "manage.py", "runbus"],
    "-m": [*OPTIONS, "-m", "django", "runbus", "--settings", "settings"],
}


def run(development, *arguments):
    site = RunningSite(env=development.environment, cwd=development.root)
    site.command = [sys.executable, *arguments]
    return site


@pytest.mark.parametrize("command", COMMANDS)
def test_a_view_sees_what_runserver_would_show_it_with_the_spare_and_without(development, command):
    arguments = COMMANDS[command]
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

    port = str(free_port())
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


@pytest.mark.parametrize(
    ("options", "variables", "count"),
    [({}, {"WEB_CONCURRENCY": "3"}, 1), ({"workers": 2}, {}, 2)],
    ids=["WEB_CONCURRENCY", "OPTIONS"],
)
def test_gunicorn_has_one_worker_unless_options_say_otherwise(development, options, variables, count):
    development.set_up({**GUNICORN, "OPTIONS": options})
    with development.served(**variables) as served:
        assert len(development.expect_note("worker start", count)) == count
        served.expect_version(development.edit())
        served.await_reload()
        development.expect_note("worker start", 2 * count)
        served.await_calm()
    assert len(development.notes("worker start")) == len(development.notes("worker stop")) == 2 * count
