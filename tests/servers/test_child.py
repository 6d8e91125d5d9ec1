"""What a server in a child process has from the site process, and what becomes of it when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.successor.program import die_with
from tests.processes import DEADLINE
from tests.projects import MANAGE, Project

from .clients import ask, is_free
from .conftest import GUNICORN, KINDS, address_of, configure, master_of
from .faults import rows
from .load import Shop, await_that, status_of

DESCRIBE = """\
import json
import os
import sys

from django.conf import settings

HIDDEN = ("GUNICORN_CMD_ARGS", "GUNICORN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS")


def describe(role):
    note(role + json.dumps({
        "path": sys.path,
        "argv": sys.argv,
        "settings": settings.SETTINGS_MODULE,
        "optimize": sys.flags.optimize,
        "xoptions": sys._xoptions,
        "warnoptions": sys.warnoptions,
        "cwd": os.getcwd(),
        "given": [os.environ.get(name) for name in ("GIVEN", "LISTEN_HOST")],
        "hidden": [name for name in HIDDEN if name in os.environ],
    }))


for role in ("site", "worker"):
    bus.subscribe("start", lambda role=role: describe(role), role=role)
"""


def test_a_worker_has_the_path_settings_options_and_environment_of_manage_py(shop: Project) -> None:
    shop.listeners(DESCRIBE)
    (shop.root / "more").mkdir()
    configure(shop, {"shop": KINDS["gthread"]})
    (shop.root / "settings.py").rename(shop.root / "more" / "other.py")
    options = ("-O", "-Xsite.option=c", "-W", "ignore::ImportWarning")
    command = (*options, "manage.py", "runbus", "--settings", "other", "--pythonpath", "more")
    variables = {
        "GUNICORN_CMD_ARGS": "--workers 7",
        "NOTIFY_SOCKET": "/no/such.sock",
        "WATCHDOG_USEC": "1",
        "LISTEN_HOST": "kept",
        "GIVEN": "kept",
        "DJANGO_SETTINGS_MODULE": "",
    }
    with shop.start(sys.executable, *command, **variables) as site:
        address_of(site, "shop")
        notes = shop.events()
        assert site.stop() == 0

    described: dict[str, list[Any]] = {"site": [], "worker": []}
    for line in notes:
        role = line.partition("{")[0]
        described[role].append(json.loads(line.removeprefix(role)))
    (of_site,) = described["site"]
    assert len(described["worker"]) == 2
    assert of_site["optimize"] == 1
    assert of_site["xoptions"]["site.option"] == "c"
    assert "ignore::ImportWarning" in of_site["warnoptions"]
    assert of_site["settings"] == "other"
    assert of_site["given"] == ["kept", "kept"]
    assert set(of_site.pop("hidden")) == {"GUNICORN_CMD_ARGS", "NOTIFY_SOCKET", "WATCHDOG_USEC"}
    for of_worker in described["worker"]:
        assert of_worker.pop("hidden") == []
        assert of_worker == of_site


# Failures before it is ready

APPLICATION_THAT_RAISES = ["'shop' did not start: its application does not load: ", "ZeroDivisionError"]
FAILURES: dict[str, tuple[str, str, dict[str, Any], int, list[str]]] = {
    "an application that raises": ("broken.py", "1 / 0", {}, 1, APPLICATION_THAT_RAISES),
    "a start listener that raises": (
        *("shop/listeners.py", "1 / 0", {}, 70),
        ["'shop' did not start: a start listener of worker ", "ZeroDivisionError"],
    ),
    "an application that raises in the workers": (
        *("broken.py", "1 / 0", {"preload_app": False}, 1),
        APPLICATION_THAT_RAISES,
    ),
    "a process that exits": (
        *("broken.py", "import os; os._exit(9)", {}, 1),
        ["'shop' did not start: it exited with status 9 before it was ready."],
    ),
    "a start listener that hangs": (
        *("shop/listeners.py", "import time; time.sleep(60)", {}, 1),
        ["'shop' did not start: it was not ready within 10 seconds", ": 0 of 1 workers were ready."],
    ),
}
LISTENER = """\
import os
from django_wspbus import bus


@bus.subscribe("start")
def fail():
    if "OF_SHOP" in os.environ:
        {failure}
"""


@pytest.mark.parametrize("how", rows(FAILURES, 2))
def test_a_server_that_fails_to_start_is_named_and_the_others_stop(shop: Project, how: str) -> None:
    file, failure, options, status, texts = FAILURES[how]
    is_listener = file == "shop/listeners.py"
    shop.write(file, LISTENER.format(failure=failure) if is_listener else failure)
    broken = {
        "BACKEND": GUNICORN,
        "APPLICATION": None if is_listener else "broken.app",
        "OPTIONS": {"raw_env": ["OF_SHOP=1"], **options},
    }
    ready = 10 if "hangs" in how else DEADLINE  # "early" boots in it
    configure(shop, {"early": {"BACKEND": GUNICORN}, "shop": broken}, PIDFILE="site.pid", READY_TIMEOUT=ready)
    with shop.serve() as site:
        assert site.wait() == status
        for text in texts:
            assert text in site.output
        assert site.output.count("Traceback") <= 1
        assert "Quit with" not in site.output
        site.wait_for_members()
    assert not (shop.root / "site.pid").exists()


# Ends


def test_a_stop_listener_that_fails_in_a_worker_is_reported_and_shows_in_the_status(shop: Project) -> None:
    shop.listeners("bus.subscribe('stop', lambda: 1 / 0)\n")
    configure(shop, {"shop": {"BACKEND": GUNICORN}})
    with shop.serve() as site:
        address_of(site, "shop")
        assert site.stop() == 70
        assert "ZeroDivisionError" in site.output
        assert "The server 'shop': a stop listener of worker" in site.output


@pytest.mark.extended
def test_a_stop_listener_that_hangs_in_a_worker_is_named_and_ended(shop: Project) -> None:
    shop.listeners(
        "import time\ndef hang():\n    while True: time.sleep(0.01)\nbus.subscribe('stop', hang)\n"
    )
    configure(shop, {"shop": {"BACKEND": GUNICORN}}, STOP_TIMEOUT=5)
    with shop.serve() as site:
        address_of(site, "shop")
        assert site.stop() == 70
        assert "hang at " in site.output
        assert "hangs:" in site.output
        site.wait_for_members()


def test_no_process_of_a_child_holds_what_is_not_its_own(shop: Project) -> None:
    configure(shop, {"one": KINDS["gthread"], "two": KINDS["gthread"]})
    with shop.serve() as site:
        held = {}
        for alias in ("one", "two"):
            master = master_of(address_of(site, alias))
            held[alias] = set().union(*(sockets(each.pid) for each in (master, *master.children())))
        assert site.stop() == 0

    assert len(held["one"]) >= 3  # to listen on, the pair, and the links
    assert held["one"] & held["two"] == set()


def sockets(pid: int) -> set[str]:
    names = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.add(os.readlink(entry))
    return {name for name in names if name.startswith("socket:")}


@pytest.mark.extended
def test_without_pidfd_a_child_that_dies_is_noticed_and_started_again_beside_the_others(
    shop: Shop,
) -> None:
    shop.write("manage.py", "import os\n\ndel os.pidfd_open\n" + MANAGE)  # as on macOS
    servers = {"shop": KINDS["gthread"], "other": {"BACKEND": GUNICORN}}
    configure(shop, servers, SIGNALS={"SIGUSR1": "stop", "SIGUSR2": "start"})
    with shop.serve("-v2") as site:
        address, other = (address_of(site, alias) for alias in servers)
        site.send(signal.SIGUSR1)
        site.wait_for_line("Bus STOPPED")
        site.send(signal.SIGUSR2)
        site.wait_for_line("Bus STARTED", count=2)
        master, untouched = master_of(address), master_of(other)
        master.kill()

        await_that(lambda: ask(address) and "answers again" in site.output)
        (ended,) = (line for line in site.lines if "; restarting it." in line)
        assert ended == "The server 'shop' was killed by SIGKILL; restarting it."
        (answers,) = (line for line in site.lines if "answers again" in line)
        pid = status_of(address)["servers"]["shop"]["pid"]  # a worker of the old one may answer this
        assert answers.endswith(f" The server 'shop' answers again, process {pid}.")
        assert master_of(other) == untouched
        assert site.stop() == 0
        assert site.members() == []
        assert is_free(address)
        assert is_free(other)


@pytest.mark.extended
def test_what_a_worker_has_sent_into_a_session_of_its_own_does_not_hold_up_a_stop(shop: Project) -> None:
    shop.listeners(
        "import os\nimport time\n\n\n@bus.subscribe('start')\ndef leave():\n"
        "    if not os.fork():\n        os.setsid()\n        note('left')\n        time.sleep(60)\n"
        "        os._exit(0)\n"
    )
    configure(shop, {"shop": {"BACKEND": GUNICORN}})
    with shop.serve() as site:
        address_of(site, "shop")
        (left,) = shop.expect_note("left")
        assert site.stop() == 0
        assert [each.pid for each in site.members()] == [left.pid]


def test_a_program_whose_parent_is_gone_already_ends_as_if_it_went_now() -> None:
    child = os.fork()
    if not child:
        try:
            die_with(os.getpid(), signal.SIGTERM)  # which is not its parent
            os._exit(0)
        finally:
            os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
