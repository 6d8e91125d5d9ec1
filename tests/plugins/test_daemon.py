"""Going into the background, and the status and the words that the shell gets."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from django_wspbus.plugins import daemon
from django_wspbus.plugins.daemon import Foreground, daemonize
from django_wspbus.process.messages import Link
from django_wspbus.wspbus import Refusal
from tests.processes import RunningSite
from tests.projects import Project
from tests.servers.conftest import KINDS, URLS, ask, configure
from tests.servers.load import await_that

TELL = """\
import json
import os
import sys


def describe():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        terminal = True
    except OSError:
        terminal = False
    note("daemon " + json.dumps({
        "cwd": os.getcwd(),
        "leads its session": os.getsid(0) == os.getpid(),
        "terminal": terminal,
        "streams": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
    }))


bus.subscribe("start", describe, role="site")
bus.subscribe("exit", lambda: note("site exit"), role="site")
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.write("shop/urls.py", URLS)
    return project


def daemon_of(shop: Project) -> psutil.Process:
    return psutil.Process(int((shop.root / "site.pid").read_text()))


def end(site: RunningSite, daemon: psutil.Process) -> None:
    daemon.terminate()
    await_that(lambda: not site.members(), site.members)


def extended(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.extended)


@pytest.mark.parametrize("files", [True, extended(False)])
def test_the_shell_has_its_prompt_once_all_servers_answer(shop: Project, files: bool) -> None:
    shop.listeners(TELL)
    daemonize = {"STDOUT": "out.log", "STDERR": str(shop.root / "err.log")} if files else True
    configure(shop, KINDS, DAEMONIZE=daemonize, PIDFILE="site.pid")
    with shop.serve("-v2") as site:
        assert site.wait() == 0
        assert site.output == ""
        daemon = daemon_of(shop)
        status = daemon.connections() if not hasattr(daemon, "net_connections") else daemon.net_connections()
        ports = {each.laddr.port for each in status if each.status == psutil.CONN_LISTEN}
        assert len(ports) == 3
        for port in ports:
            assert ask(f"127.0.0.1:{port}")[0] == 200
        assert site.pid not in [member.pid for member in site.members()]
        assert len(site.members()) == 1 + (1 + 4) + (1 + 2)
        (note,) = [note for note in shop.notes() if note.event.startswith("daemon")]
        end(site, daemon)

    assert note.pid == daemon.pid
    assert f'"cwd": "{shop.root}"' in note.event
    assert '"leads its session": false, "terminal": false' in note.event
    streams = (
        [str(shop.root / "out.log"), str(shop.root / "err.log")] if files else ["/dev/null", "/dev/null"]
    )
    assert '"streams": ["/dev/null", "{}", "{}"]'.format(*streams) in note.event
    if files:
        assert "Quit with" in (shop.root / "out.log").read_text()
        assert "Bus STARTED" in (shop.root / "err.log").read_text()
    assert not (shop.root / "site.pid").exists()
    assert [note.pid for note in shop.notes("site exit")] == [daemon.pid]


FAILURES: dict[str, tuple[dict[str, Any], dict[str, str], int, str]] = {
    "a port": ({"BIND": "203.0.113.7:8000"}, {}, 1, "cannot listen on 203.0.113.7:8000"),
    "an application": ({"APPLICATION": "broken.app"}, {"broken.py": "1 / 0"}, 1, "ZeroDivisionError"),
    "a start listener": (
        {},
        {"shop/listeners.py": "from django_wspbus import bus\nbus.subscribe('start', lambda: 1 / 0)\n"},
        70,
        "ZeroDivisionError",
    ),
    "a process that is killed": (
        {},
        {
            "shop/listeners.py": "import os\nfrom django_wspbus import bus\n"
            "bus.subscribe('start', lambda: os.kill(os.getpid(), 9), role='site')\n"
        },
        1,
        "The daemon ended during its start.",
    ),
}


@pytest.mark.parametrize(
    "what",
    ["a start listener", "a process that is killed", extended("a port"), extended("an application")],
)
def test_a_daemon_that_does_not_start_is_an_error_of_the_command(shop: Project, what: str) -> None:
    server, files, status, says = FAILURES[what]
    for name, text in files.items():
        shop.write(name, text)
    servers = {"early": KINDS["gthread"], "shop": {**KINDS["sync"], **server}}
    configure(shop, servers, DAEMONIZE=True, PIDFILE="site.pid")
    with shop.serve() as site:
        assert site.wait() == status
        assert says in site.output
        if what != "a process that is killed":
            await_that(lambda: not site.members(), site.members)  # the command waits for a few seconds only
            assert not (shop.root / "site.pid").exists()


def test_a_shell_that_waits_no_longer_does_not_harm_the_daemon(shop: Project) -> None:
    shop.listeners(
        "import time\nfrom pathlib import Path\n\n\n"
        "def wait():\n    note('waits')\n"
        "    while not Path('go').exists():\n        time.sleep(0.01)\n\n\n"
        "bus.subscribe('start', wait, role='site')\n"
    )
    configure(shop, {"shop": KINDS["threaded"]}, DAEMONIZE={"STDOUT": "out.log"}, PIDFILE="site.pid")
    with shop.serve() as site:
        (note,) = shop.expect_note("waits")
        assert site.stop(signal.SIGINT) != 0
        (shop.root / "go").touch()
        await_that(lambda: "Quit with" in (shop.root / "out.log").read_text())
        daemon = daemon_of(shop)
        assert daemon.pid == note.pid
        end(site, daemon)
    assert not (shop.root / "site.pid").exists()


def test_an_output_file_that_cannot_be_opened_is_an_error_before_the_fork(tmp_path: Path) -> None:
    path = tmp_path / "no" / "out.log"
    with pytest.raises(Refusal, match=f"The output file {path} cannot be written: No such file"):
        daemonize(stdout=path)


def test_only_the_first_report_counts() -> None:
    ours, theirs = map(Link, socket.socketpair())
    foreground = Foreground(theirs)
    foreground.report(0)
    foreground.report(70, "too late")

    assert ours.receive() == [({"status": 0, "message": ""}, [])]
    assert ours.receive() is None
    ours.close()


def test_a_foreground_that_is_stopped_does_not_hold_up_a_daemon_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon, "FOREGROUND_TIMEOUT", 0.1)
    monkeypatch.setattr(daemon, "MOST_OF_A_MESSAGE", 1_000_000)  # more than it takes unread
    ours, theirs = map(Link, socket.socketpair())
    Foreground(theirs).report(70, "x" * 1_000_000)
    ours.close()
    theirs.close()


# Rotation of its output


SAY = """\
import os
import sys


def say(who):
    sys.stdout.write(f"{who} {os.getpid()} out\\n")
    sys.stdout.flush()
    sys.stderr.write(f"{who} {os.getpid()} err\\n")


bus.subscribe("graceful", lambda: say("site"), role="site")
bus.subscribe("start", lambda: say("worker"), role="worker")
"""


def restart(daemon: psutil.Process, out: Path, count: int) -> None:
    """Restart a daemon; ``count``: how many workers its output then holds."""
    daemon.send_signal(signal.SIGUSR2)
    await_that(lambda: out.exists() and out.read_text().count("Quit with") == count, out.parent.iterdir)


@pytest.fixture
def rotated(shop: Project) -> Iterator[tuple[RunningSite, psutil.Process, Path]]:
    """A daemon whose output is in a folder of its own."""
    shop.listeners(SAY)
    logs = shop.root / "logs"
    logs.mkdir()
    files = {"STDOUT": str(logs / "out.log"), "STDERR": str(logs / "err.log")}
    configure(shop, {"shop": KINDS["gthread"]}, DAEMONIZE=files, PIDFILE="site.pid")
    with shop.serve() as site:
        assert site.wait() == 0
        daemon = daemon_of(shop)
        yield site, daemon, logs
        end(site, daemon)


@pytest.mark.extended
def test_after_a_restart_a_daemon_and_its_workers_write_to_files_of_the_old_names(
    rotated: tuple[RunningSite, psutil.Process, Path],
) -> None:
    _, daemon, logs = rotated
    for name in ("out", "err"):
        (logs / f"{name}.log").rename(logs / f"{name}.log.1")
    before = {name: (logs / f"{name}.log.1").read_text() for name in ("out", "err")}
    restart(daemon, logs / "out.log", 1)
    daemon.send_signal(signal.SIGUSR1)
    await_that(lambda: (logs / "out.log").read_text().count("site") == 1)
    await_that(lambda: (logs / "out.log").read_text().count("worker") >= 2)

    assert (logs / "err.log").read_text().count("worker") >= 2
    assert {name: (logs / f"{name}.log.1").read_text() for name in ("out", "err")} == before


@pytest.mark.extended
def test_a_file_that_is_truncated_is_written_from_its_beginning(
    rotated: tuple[RunningSite, psutil.Process, Path],
) -> None:
    _, daemon, logs = rotated
    os.truncate(logs / "out.log", 0)
    restart(daemon, logs / "out.log", 1)

    assert b"\0" not in (logs / "out.log").read_bytes()
    assert sorted(path.name for path in logs.iterdir()) == ["err.log", "out.log"]


@pytest.mark.extended
def test_without_its_folder_the_output_goes_on_to_the_old_files_after_one_warning(
    rotated: tuple[RunningSite, psutil.Process, Path],
) -> None:
    _, daemon, logs = rotated
    moved = logs.with_name("moved")
    logs.rename(moved)
    restart(daemon, moved / "out.log", 2)

    written = (moved / "err.log").read_text()
    assert written.count("Output files not reopened, so output goes to the old ones: ") == 1
    assert f"{logs / 'out.log'} (No such file or directory), {logs / 'err.log'} (No such" in written
    logs.mkdir()
    restart(daemon, logs / "out.log", 1)
