"""The log files of all processes of a site, reopened after log rotation has moved them."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import RunningSite
from tests.projects import Project
from tests.servers.conftest import GUNICORN, KINDS, THREADED, address_of, ask, configure
from tests.servers.load import await_that

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(process)d %(message)s"}},
    "handlers": {
        "root": {"class": "logging.FileHandler", "filename": "logs/root.log", "formatter": "plain"},
        "shop": {
            "class": "logging.handlers.WatchedFileHandler",
            "filename": "logs/shop.log",
            "formatter": "plain",
        },
    },
    "loggers": {"shop": {"handlers": ["shop"], "level": "INFO"}},
    "root": {"handlers": ["root"], "level": "INFO"},
}

URLS = """
import logging
import os
import sys

from django.http import HttpResponse, JsonResponse
from django.urls import path

from django_wspbus import bus


def answer(request):
    logging.getLogger("shop").info("answered")
    sys.stderr.write(f"{os.getpid()} answered\\n")
    return HttpResponse(str(os.getpid()))


urlpatterns = [
    path("", answer),
    path("reopen/", lambda request: JsonResponse(bus.site.publish("reopen"), safe=False)),
]
"""

LISTENERS = """
import logging


@bus.subscribe("speak", role="site")
def speak():
    logging.getLogger("shop").info("spoke")
"""


@pytest.fixture
def logs(project: Project) -> Path:
    project.write("shop/urls.py", URLS)
    project.listeners(LISTENERS)
    (project.root / "logs").mkdir()
    return project.root / "logs"


def write_settings(project: Project, server: dict[str, Any], logging: Any = LOGGING, **wspbus: Any) -> None:
    configure(project, {"default": server}, SIGNALS={"SIGWINCH": "reopen", "SIGIO": "speak"}, **wspbus)
    settings = project.root / "settings.py"
    settings.write_text(settings.read_text() + f"LOGGING = {logging!r}\n")


def plain_logging() -> dict[str, Any]:
    """Return LOGGING with a handler that does not look for a moved file itself."""
    shop = {**LOGGING["handlers"]["root"], "filename": "logs/shop.log"}
    return {**LOGGING, "handlers": {**LOGGING["handlers"], "shop": shop}}


def rotate(logs: Path) -> dict[str, str]:
    """Move every file aside; return the texts so far."""
    texts = {}
    for path in sorted(logs.glob("*.log")):
        path.rename(path.with_suffix(".old"))
        texts[path.stem] = path.with_suffix(".old").read_text()
    return texts


def reopen(address: str) -> dict[str, Any]:
    (result,) = json.loads(ask(address, "/reopen/")[1])
    return dict(result)


def files_of(site: RunningSite) -> set[str]:
    """Return the names of the log files that the processes of a site have open."""
    found = set()
    for process in site.members():
        with contextlib.suppress(psutil.Error):  # it has ended
            found |= {Path(file.path).name for file in process.open_files() if "/logs/" in file.path}
    return found


def pids_in(path: Path) -> set[int]:
    return {int(line.split()[0]) for line in path.read_text().splitlines()}


def ask_every(address: str, pids: set[int]) -> None:
    """Send requests until each of these workers has answered one."""
    answered: set[int] = set()
    await_that(lambda: answered.add(int(ask(address)[1])) or answered >= pids, lambda: answered)


def workers_of(site: RunningSite) -> set[int]:
    site.wait_until_started()
    (master,) = [each for each in psutil.Process(site.pid).children() if "serve" in each.cmdline()]
    return {each.pid for each in master.children()}


@pytest.mark.parametrize("kind", ["gthread", pytest.param("sync", marks=pytest.mark.extended)])
def test_every_process_writes_to_the_new_files(project: Project, logs: Path, kind: str) -> None:
    access = {
        "accesslog": "logs/access.log",
        "access_log_format": "%(p)s %(U)s",
        "errorlog": "logs/error.log",
    }
    write_settings(project, {**KINDS[kind], "OPTIONS": {**KINDS[kind]["OPTIONS"], **access}})
    with project.serve() as site:
        address = address_of(site)
        workers = workers_of(site)
        ask_every(address, workers)
        old = rotate(logs)
        result = reopen(address)
        site.send(signal.SIGIO)
        ask_every(address, workers)

        names = ("access", "error", "root", "shop")
        assert result == {"files": [str(logs / f"{name}.log") for name in names], "failures": []}
        await_that(lambda: pids_in(logs / "shop.log") == {site.pid, *workers})
        assert pids_in(logs / "root.log") >= {site.pid, *workers}
        # gunicorn writes the line of a request after the client has its answer.
        of_workers = {f"<{pid}>" for pid in workers}
        await_that(lambda: of_workers <= set((logs / "access.log").read_text().split()))
        assert site.stop() == 0
    for name, text in old.items():
        written = (logs / f"{name}.old").read_text()
        assert written.startswith(text)
        assert "answered" not in written.removeprefix(text)


def test_a_server_in_the_site_process_writes_to_the_new_files(project: Project, logs: Path) -> None:
    write_settings(project, {"BACKEND": THREADED})
    with project.serve() as site:
        address = address_of(site)
        ask(address)
        old = rotate(logs)
        assert reopen(address)["failures"] == []
        ask(address)
        assert (logs / "shop.old").read_text() == old["shop"] == f"{site.pid} answered\n"
        assert (logs / "shop.log").read_text() == f"{site.pid} answered\n"
        assert site.stop() == 0


def test_the_output_of_a_daemon_and_its_workers_goes_to_the_new_files(project: Project, logs: Path) -> None:
    output = {"STDOUT": "logs/out.log", "STDERR": "logs/err.log"}
    write_settings(project, KINDS["gthread"], DAEMONIZE=output, PIDFILE="site.pid")
    with project.serve() as site:
        assert site.wait() == 0
        daemon = psutil.Process(int((project.root / "site.pid").read_text()))
        address = (logs / "out.log").read_text().split("http://")[1].split("/ ")[0]
        (master,) = [each for each in daemon.children() if "serve" in each.cmdline()]
        rotate(logs)
        assert str(logs / "out.log") in reopen(address)["files"]
        for process in (daemon, master, *master.children()):
            streams = [Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in (1, 2)]
            assert streams == [logs / "out.log", logs / "err.log"]
        ask_every(address, {each.pid for each in master.children()})
        assert pids_in(logs / "err.log") >= {each.pid for each in master.children()}
        daemon.terminate()
        await_that(lambda: not site.members(), site.members)


def test_a_signal_reopens_the_files(project: Project, logs: Path) -> None:
    write_settings(project, {"BACKEND": THREADED})
    with project.serve() as site:
        site.wait_until_started()
        rotate(logs)
        site.send(signal.SIGWINCH)
        await_that(
            lambda: (logs / "root.log").exists() and "Reopened 2 log" in (logs / "root.log").read_text()
        )
        assert site.stop() == 0


@pytest.mark.extended
def test_a_file_that_cannot_be_opened_is_named_and_the_old_one_is_used(project: Project, logs: Path) -> None:
    write_settings(project, KINDS["gthread"], plain_logging())
    with project.serve() as site:
        address = address_of(site)
        logs.rename(moved := project.root / "moved")
        failures = reopen(address)["failures"]
        pid = int(ask(address)[1])

        reason = "No such file or directory"
        assert failures == [f"{logs / 'root.log'} ({reason})", f"{logs / 'shop.log'} ({reason})"]
        assert pid in pids_in(moved / "root.log")
        assert "records go to the old ones" in (moved / "root.log").read_text()
        assert site.stop() == 0


@pytest.mark.extended
def test_no_record_is_lost_while_files_are_moved(
    project: Project, logs: Path, later: Callable[..., Any]
) -> None:
    write_settings(project, {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2}}, plain_logging())
    with project.serve() as site:
        address = address_of(site)
        rotations = 0

        def ask_meanwhile() -> list[int]:
            statuses = []
            while len(statuses) < 400 or rotations < 4:
                statuses.append(ask(address)[0])
            return statuses

        asked = later(ask_meanwhile)
        while not asked.done():
            (logs / "shop.log").rename(logs / f"shop.{rotations}")
            assert reopen(address)["failures"] == []
            rotations += 1
        statuses = asked.result()
        assert set(statuses) == {200}
        assert site.stop() == 0
    lines = [line for path in logs.glob("shop.*") for line in path.read_text().splitlines()]
    assert [line.split()[1] for line in lines] == ["answered"] * len(statuses)


@pytest.mark.extended
def test_a_worker_that_is_stopped_is_named(project: Project, logs: Path) -> None:
    write_settings(project, {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2}})
    with project.serve() as site:
        address = address_of(site)
        stopped, *_ = workers_of(site)
        psutil.Process(stopped).suspend()
        failures = reopen(address)["failures"]
        assert failures == [f"process {stopped} has not reopened its files within 5 s"]
        psutil.Process(stopped).resume()
        assert site.stop() == 0


@pytest.mark.extended
def test_a_worker_that_boots_meanwhile_follows(project: Project, logs: Path) -> None:
    project.listeners(
        LISTENERS + "import time\nfrom pathlib import Path\n\n\n"
        "@bus.subscribe('start')\ndef wait():\n    note('waits')\n"
        "    while not Path('go').exists():\n        time.sleep(0.01)\n"
    )
    (project.root / "go").touch()
    write_settings(project, KINDS["gthread"], plain_logging())
    with project.serve() as site:
        address = address_of(site)
        before = workers_of(site)
        (project.root / "go").unlink()
        site.send(signal.SIGUSR1)
        project.expect_note("waits", count=4)
        rotate(logs)
        assert reopen(address)["failures"] == []
        (project.root / "go").touch()
        await_that(lambda: "Reloaded" in (logs / "root.log").read_text())
        await_that(lambda: int(ask(address)[1]) not in before)
        await_that(lambda: not any(".old" in name for name in files_of(site)), lambda: files_of(site))
        old = (logs / "shop.old").read_text()
        assert int(ask(address)[1]) in pids_in(logs / "shop.log")
        assert (logs / "shop.old").read_text() == old
        assert site.stop() == 0


@pytest.mark.extended
def test_a_standby_worker_and_one_that_drains_have_no_old_file_open(
    project: Project, logs: Path, later: Callable[..., Any]
) -> None:
    urls = URLS.replace(
        "urlpatterns = [",
        "def held(request):\n    import time\n    from pathlib import Path\n\n"
        "    from .journal import note\n\n"
        "    note('held')\n    while not Path('go').exists():\n        time.sleep(0.01)\n"
        "    return answer(request)\n\n\nurlpatterns = [\n    path('held/', held),",
    )
    project.write("shop/urls.py", urls)
    server = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1, "threads": 2}, "RECYCLE": {"AGE": 86400}}
    write_settings(project, server, plain_logging())
    with project.serve() as site:
        address = address_of(site)
        answer = later(ask, address, "/held/")
        project.expect_note("held")
        site.send(signal.SIGUSR1)
        await_that(lambda: "Reloaded" in (logs / "root.log").read_text())
        rotate(logs)
        assert reopen(address)["failures"] == []
        await_that(lambda: files_of(site) == {"root.log", "shop.log"}, lambda: files_of(site))
        (project.root / "go").touch()
        assert answer.result()[0] == 200
        assert site.stop() == 0


@pytest.mark.extended
def test_the_output_that_gunicorn_captures_goes_to_the_new_file(project: Project, logs: Path) -> None:
    options = {"workers": 1, "capture_output": True, "errorlog": "logs/error.log"}
    write_settings(project, {"BACKEND": GUNICORN, "OPTIONS": options})
    with project.serve() as site:
        address = address_of(site)
        rotate(logs)
        result = reopen(address)
        pid = int(ask(address)[1])

        assert (str(logs / "error.log") in result["files"], result["failures"]) == (True, [])
        assert f"{pid} answered" in (logs / "error.log").read_text()
        assert files_of(site) == {"error.log", "root.log", "shop.log"}
        assert site.stop() == 0
