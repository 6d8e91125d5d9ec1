"""The unit and socket files for systemd, and a site under systemd itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machines import Machine, why_not
from tests.processes import free_port
from tests.servers.clients import ask
from tests.servers.conftest import GUNICORN, THREADED, Later, hold, release
from tests.servers.load import Shop, await_version, held_start

PRINT = ("wspbus", "systemd", "--name", "shop", "--json")

USER = "www-data"


def files_of(shop: Shop) -> dict[str, str]:
    """Return the files that a project prints, by name."""
    result = shop.run(*PRINT)
    assert result.returncode == 0, result
    found: dict[str, str] = json.loads(result.stdout)["files"]
    return found


def configure(shop: Shop, **wspbus: Any) -> str:
    """Write settings with one server of two workers; return its address."""
    address = f"127.0.0.1:{free_port()}"
    server = {"BACKEND": GUNICORN, "BIND": address, "OPTIONS": {"workers": 2}}
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(shop.root / "db.sqlite3")}
    shop.configure(WSPBUS={"SERVERS": {"default": server}, **wspbus}, DATABASES={"default": database})
    return address


@pytest.fixture
def deployed() -> Iterator[Shop]:
    """A project in a folder that other users may enter, and that belongs to another user than root."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    yield Shop(Path(folder))
    shutil.rmtree(folder)


def give(shop: Shop) -> None:
    """Give the project to the user that runs the site."""
    if os.geteuid() == 0:
        for path in (shop.root, *shop.root.rglob("*")):
            shutil.chown(path, USER, USER)


def test_the_service_runs_the_command_that_was_typed_and_the_socket_unit_has_each_address(shop: Shop) -> None:
    servers = {
        "web": {"BACKEND": GUNICORN, "BIND": [":8000", "[::1]:8000"], "OPTIONS": {"backlog": 7}},
        "admin": {"BACKEND": THREADED, "BIND": "unix:/run/shop 1/admin.sock"},
        "named": {"BACKEND": THREADED, "BIND": "systemd:named"},
    }
    shop.configure(
        WSPBUS={"SERVERS": servers, "STOP_TIMEOUT": 60, "PIDFILE": "/run/shop/site.pid"},
        MEDIA_ROOT="/srv/50%",
    )
    files = files_of(shop)
    service = files["shop.service"].splitlines()
    assert f"ExecStart={sys.executable} {shop.manage} runbus" in service
    assert f"ExecReload={sys.executable} -m django_wspbus graceful --pid $MAINPID" in service
    assert f"WorkingDirectory={shop.root}" in service
    assert "Type=notify" in service
    assert "TimeoutStopSec=65" in service
    assert "TimeoutStartSec=120" in service
    assert "RuntimeDirectory=shop" in service
    assert 'ReadWritePaths="-/srv/50%%" -/tmp -/var/tmp' in service
    assert "Sockets=shop.socket shop-named.socket" in service
    assert not [line for line in service if line.startswith(("PrivateNetwork", "PrivateUsers", "ProcSubset"))]
    streams = [line for line in files["shop.socket"].splitlines() if line.startswith("ListenStream")]
    assert streams == [
        *("ListenStream=0.0.0.0:8000", "ListenStream=[::1]:8000", "ListenStream=/run/shop 1/admin.sock")
    ]
    assert "FileDescriptorName=named" in files["shop-named.socket"].splitlines()


def test_a_link_to_the_release_stays_in_the_unit(shop: Shop, tmp_path: Path) -> None:
    configure(shop)
    current = tmp_path / "current"
    current.symlink_to(shop.root)
    command = [sys.executable, str(current / "manage.py"), *PRINT]
    env = os.environ | shop.environment
    result = subprocess.run(command, cwd=current, env=env, capture_output=True, text=True, check=True)
    assert f"{current}/manage.py runbus" in result.stdout
    assert f"WorkingDirectory={current}\\n" in result.stdout


@pytest.mark.extended
def test_it_starts_in_the_folder_of_its_script_wherever_the_command_is_typed(shop: Shop) -> None:
    configure(shop)
    command = [sys.executable, shop.manage, *PRINT]
    env = os.environ | shop.environment
    result = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, check=True)
    assert f"WorkingDirectory={shop.root}\\n" in result.stdout


@pytest.mark.extended
@pytest.mark.parametrize(
    ("control", "reload"),
    [
        ("/run/shop/control", "-m django_wspbus graceful --socket /run/shop/control"),
        (False, "/bin/kill -USR1 $MAINPID"),
    ],
)
def test_a_reload_goes_the_way_that_the_site_offers(shop: Shop, control: Any, reload: str) -> None:
    configure(shop, CONTROL=control)
    (line,) = re.findall("^ExecReload=(.*)", files_of(shop)["shop.service"], re.MULTILINE)
    assert line.endswith(reload)


def test_a_daemon_cannot_be_a_unit(shop: Shop) -> None:
    configure(shop, DAEMONIZE=True)
    result = shop.run(*PRINT)
    assert "DAEMONIZE" in result.stderr


@pytest.mark.extended
def test_systemd_accepts_the_files_and_calls_the_unit_ok(shop: Shop, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    configure(shop)
    paths = []
    for name, text in files_of(shop).items():
        paths.append(str(tmp_path / name))
        Path(paths[-1]).write_text(text)
    assert len(paths) == 2
    verified = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    review = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=49", paths[0]]
    reviewed = subprocess.run(review, capture_output=True, text=True, check=False)
    assert reviewed.returncode == 0, reviewed.stdout
    assert " OK " in reviewed.stdout.splitlines()[-1]


# Under systemd itself


@pytest.fixture
def machine_of() -> Iterator[Any]:
    """Start a machine with the units of a project, in which lines of the service are replaced."""
    if reason := why_not():
        pytest.skip(f"systemd cannot run here: {reason}")
    started: list[Machine] = []

    def start(shop: Shop, **replaced: str) -> Machine:
        units = files_of(shop)
        give(shop)
        for name, value in replaced.items():
            lines = units["shop.service"].splitlines()
            assert any(line.startswith(f"{name}=") for line in lines)
            units["shop.service"] = "\n".join(
                f"{name}={value}" if line.startswith(f"{name}=") else line for line in lines
            )
        started.append(Machine(units).__enter__())
        return started[-1]

    yield start
    for machine in started:
        result = machine.run("systemctl", "status", "--no-pager", "shop.service", "shop.socket")
        sys.stdout.write(result.stdout + machine.output())
        machine.__exit__(None, None, None)


READY = "ready: 2 of 2 workers"


@pytest.mark.extended
def test_under_systemd_it_starts_reloads_restarts_and_stops(deployed: Shop, machine_of: Any) -> None:
    address = configure(deployed)
    deployed.listeners(held_start())
    go = deployed.write("go", "")
    machine = machine_of(deployed)
    machine.systemctl("start", "shop.service")
    assert machine.show("shop.service", "ActiveState") == "active"
    assert machine.show("shop.service", "StatusText") == READY
    assert ask(address)[0] == 200
    pid = machine.show("shop.service", "MainPID")

    go.unlink()  # so that the restart lasts until this test has seen it
    machine.systemctl("kill", "--kill-whom=main", "--signal=USR2", "shop.service")
    machine.wait_for("shop.service", "SubState", "reload")
    go.touch()
    machine.wait_for("shop.service", "SubState", "running")
    assert machine.show("shop.service", "MainPID") == pid
    assert ask(address)[0] == 200

    version = deployed.deploy()
    machine.systemctl("reload", "shop.service")
    await_version(address, version)
    good = (deployed.root / "shop/urls.py").read_text()
    deployed.write("shop/urls.py", "1 / 0\n")
    assert machine.run("systemctl", "reload", "shop.service").returncode == 1
    machine.wait_for("shop.service", "SubState", "running")
    machine.wait_until(lambda: "The reload failed" in machine.show("shop.service", "StatusText"))
    assert "ZeroDivisionError" in machine.output()
    deployed.write("shop/urls.py", good)
    machine.systemctl("reload", "shop.service")
    machine.wait_for("shop.service", "StatusText", READY)

    status = machine.run(sys.executable, "-m", "django_wspbus", "status", "--pid", pid)
    assert status.returncode == 0, status
    assert status.stdout.startswith("Well: ready")
    assert address in status.stdout

    machine.systemctl("stop", "shop.service")
    assert machine.show("shop.service", "Result") == "success"
    assert machine.show("shop.service", "ActiveState") == "inactive"


@pytest.mark.extended
def test_under_systemd_a_site_that_does_not_start_never_counts_as_started(
    deployed: Shop, machine_of: Any
) -> None:
    configure(deployed)
    deployed.write("shop/urls.py", "1 / 0\n")
    machine = machine_of(deployed, Restart="no")
    assert machine.run("systemctl", "start", "shop.service").returncode == 1
    machine.wait_for("shop.service", "ActiveState", "failed")
    assert machine.show("shop.service", "Result") == "exit-code"
    assert "did not start" in machine.show("shop.service", "StatusText")


@pytest.mark.extended
def test_under_systemd_a_drain_takes_longer_than_the_unit_allows(
    deployed: Shop, machine_of: Any, later: Later
) -> None:
    address = configure(deployed)
    machine = machine_of(deployed, TimeoutStopSec="3", WatchdogSec="6")
    machine.systemctl("start", "shop.service")
    answer = hold(deployed, later, address, "/held/drain")
    began = time.monotonic()
    machine.systemctl("stop", "--no-block", "shop.service")
    machine.wait_for("shop.service", "StatusText", "draining: the site exits")
    time.sleep(max(began + 8 - time.monotonic(), 0))
    assert machine.show("shop.service", "ActiveState") == "deactivating"
    release(deployed, "drain")
    assert answer.result() == (200, "drain answered")
    machine.wait_for("shop.service", "ActiveState", "inactive")
    assert machine.show("shop.service", "Result") == "success"


HANG = """
import time
from pathlib import Path

HANG = Path(__file__).parent.parent / "hang"


@bus.subscribe("graceful", role="site")
def hang():
    while HANG.exists():
        time.sleep(0.01)
"""


@pytest.mark.extended
def test_under_systemd_a_bus_that_hangs_is_restarted_and_a_killed_site_too(
    deployed: Shop, machine_of: Any
) -> None:
    address = configure(deployed)
    deployed.listeners(HANG)
    deployed.write("hang", "")
    machine = machine_of(deployed, WatchdogSec="6", RestartSec="0")
    machine.systemctl("start", "shop.service")
    first = machine.show("shop.service", "MainPID")
    machine.systemctl("kill", "--kill-whom=main", "--signal=USR1", "shop.service")
    machine.wait_for("shop.service", "NRestarts", "1")
    (deployed.root / "hang").unlink()
    machine.wait_for("shop.service", "ActiveState", "active")
    second = machine.show("shop.service", "MainPID")
    assert second not in (first, "0")
    assert "in hang" in machine.output()  # the stacks of the process that hung

    machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", "shop.service")
    machine.wait_for("shop.service", "NRestarts", "2")  # so that no worker of the killed site is left
    assert ask(address)[0] == 200  # it waits in the socket, which systemd keeps
    machine.wait_for("shop.service", "ActiveState", "active")
