"""The reports of whole sites to their service manager: a socket that plays systemd."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import RunningSite
from tests.service_managers import ServiceManager

from .clients import ask
from .conftest import GUNICORN, KINDS, address_of, configure
from .load import Shop

CHILD = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2}}
READY = "ready: 2 of 2 workers"


@pytest.fixture
def manager(short: Path) -> Iterator[ServiceManager]:
    with ServiceManager(str(short / "notify")) as manager:
        yield manager


def serve(shop: Shop, manager: ServiceManager, **variables: str) -> RunningSite:
    return shop.serve("-v2", NOTIFY_SOCKET=manager.name, **variables)


def names_of(manager: ServiceManager) -> list[str]:
    """Return the states that have been reported, in order."""
    states = ("READY", "RELOADING", "STOPPING")
    return [name for message in manager.drain() for name in states if name in message]


@pytest.mark.parametrize("name", ["path", pytest.param("abstract", marks=pytest.mark.extended)])
def test_it_is_ready_once_it_has_started_and_reports_its_reload_and_its_exit(
    shop: Shop, short: Path, name: str
) -> None:
    configure(shop, {"default": CHILD}, STOP_TIMEOUT=40)
    where = str(short / "notify") if name == "path" else f"@wspbus-test-{os.getpid()}-{time.monotonic_ns()}"
    with ServiceManager(where) as manager, serve(shop, manager) as site:
        first = manager.receive()
        assert first == {"STATUS": "starting", "EXTEND_TIMEOUT_USEC": "32000000"}
        assert manager.wait_for("READY") == {"READY": "1", "STATUS": READY}
        assert ask(address_of(site))[0] == 200

        before = time.monotonic_ns() // 1000
        site.send(signal.SIGUSR1)
        reloading = manager.wait_for("RELOADING")
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert reloading["STATUS"] == "reloading: a reload is under way"
        assert manager.wait_for("READY") == {"READY": "1", "STATUS": READY}

        site.send(signal.SIGTERM)
        stopping = manager.wait_for("STOPPING")
        assert stopping["STATUS"] == "draining: the site exits"
        assert stopping["EXTEND_TIMEOUT_USEC"] == "42000000"
        assert site.wait() == 0
        assert names_of(manager) == ["READY", "RELOADING", "READY", "STOPPING"]
        assert manager.senders == {site.pid}  # gunicorn, which could report as well, does not


def test_a_site_that_does_not_start_is_never_ready(shop: Shop, manager: ServiceManager) -> None:
    shop.write("shop/urls.py", "1 / 0\n")
    configure(shop, {"default": CHILD})
    with serve(shop, manager) as site:
        assert site.wait() == 1
    assert names_of(manager) == ["STOPPING"]
    assert manager.messages[-1]["STATUS"].startswith("failed: The server 'default' did not start: ")


@pytest.mark.extended
def test_a_refused_reload_ends_ready_with_the_reason(shop: Shop, manager: ServiceManager) -> None:
    configure(shop, {"default": CHILD})
    with serve(shop, manager) as site:
        manager.wait_for("READY")
        shop.write("shop/urls.py", "1 / 0\n")
        site.send(signal.SIGUSR1)
        manager.wait_for("RELOADING")
        text = manager.wait_for("READY")["STATUS"]
        assert text.startswith(
            f"{READY}. The reload failed; the old code keeps serving: the server 'default'"
        )
        assert ask(address_of(site))[0] == 200


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["child", "threaded"])
def test_a_restart_reloads_until_the_next_program_is_ready(
    shop: Shop, manager: ServiceManager, kind: str
) -> None:
    configure(shop, {"default": CHILD if kind == "child" else KINDS["threaded"]})
    with serve(shop, manager, WATCHDOG_USEC="60000000") as site:
        assert manager.wait_for("READY")["WATCHDOG_USEC"] == "60000000"
        site.send(signal.SIGUSR2)
        manager.wait_for("RELOADING")
        # In the time of the stop listeners, then in that of the next program.
        for seconds in (60, 30 + 15 + 5):
            assert int(manager.wait_for("WATCHDOG_USEC")["WATCHDOG_USEC"]) == seconds * 1_000_000
        ready = manager.wait_for("READY")
        assert ready["MAINPID"] == str(site.pid)
        assert ready["WATCHDOG_USEC"] == "60000000"
        assert site.stop() == 0
        assert names_of(manager) == ["READY", "RELOADING", "READY", "STOPPING"]


@pytest.mark.extended
def test_a_refused_restart_ends_ready_with_the_reason(shop: Shop, manager: ServiceManager) -> None:
    configure(shop, {"default": CHILD})
    with serve(shop, manager) as site:
        manager.wait_for("READY")
        shop.write("settings.py", "1 / 0\n")
        site.send(signal.SIGUSR2)
        manager.wait_for("RELOADING")
        assert "The restart failed; the old code keeps serving: " in manager.wait_for("READY")["STATUS"]
        assert ask(address_of(site))[0] == 200


SPOIL = """
from pathlib import Path


@bus.subscribe("exit", role="site")
def spoil():
    if bus.execv:
        (Path(__file__).parent.parent / "settings.py").write_text("1 / 0")
"""


@pytest.mark.extended
def test_a_restart_that_fails_after_its_dry_run_stays_reloading_and_can_be_stopped(
    shop: Shop, manager: ServiceManager
) -> None:
    shop.listeners(SPOIL)
    configure(shop, {"default": CHILD}, STOP_TIMEOUT=40)
    with serve(shop, manager) as site:
        address = address_of(site)
        site.send(signal.SIGUSR2)
        text = manager.wait_for("STATUS", "the restart failed")["STATUS"]
        assert text.startswith("reloading: the restart failed, the workers serve: ")
        assert ask(address)[0] == 200
        site.send(signal.SIGTERM)
        assert manager.wait_for("STOPPING")["EXTEND_TIMEOUT_USEC"] == "45000000"
        site.wait()
        assert names_of(manager) == ["READY", "RELOADING", "STOPPING"]


# It holds the thread that moves the bus until there is a file.
HANG = """
import time
from pathlib import Path

GO = Path(__file__).parent.parent / "go"


@bus.subscribe("shop.hang", role="site")
def hang():
    note("hangs")
    while not GO.exists():
        time.sleep(0.01)

"""


def test_signs_of_life_come_from_the_thread_that_moves_the_bus(shop: Shop, manager: ServiceManager) -> None:
    shop.listeners(HANG)
    configure(
        shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1}}}, SIGNALS={"SIGUSR2": "shop.hang"}
    )
    with serve(shop, manager, WATCHDOG_USEC="200000") as site:
        manager.wait_for("READY")
        for _ in range(3):
            assert manager.wait_for("WATCHDOG")["WATCHDOG"] == "1"
        site.send(signal.SIGUSR2)
        shop.expect_note("hangs")
        manager.drain()
        count = len(manager.messages)
        time.sleep(0.5)
        assert manager.drain()[count:] == []
        (shop.root / "go").touch()
        manager.wait_for("WATCHDOG")
        assert site.stop() == 0


@pytest.mark.extended
def test_a_watchdog_of_another_process_gets_no_signs_of_life(shop: Shop, manager: ServiceManager) -> None:
    configure(shop, {"default": KINDS["threaded"]})
    with serve(shop, manager, WATCHDOG_USEC="100000", WATCHDOG_PID="1") as site:
        assert "WATCHDOG_USEC" not in manager.wait_for("READY")
        assert site.stop() == 0
        assert not any("WATCHDOG" in message for message in manager.drain())


@pytest.mark.extended
def test_a_daemon_reports_its_own_pid(shop: Shop, manager: ServiceManager) -> None:
    configure(shop, {"default": CHILD}, DAEMONIZE=True, PIDFILE="site.pid")
    with serve(shop, manager, WATCHDOG_USEC="200000", WATCHDOG_PID="1") as site:
        assert site.wait() == 0
        pid = int((shop.root / "site.pid").read_text())
        assert manager.wait_for("READY")["MAINPID"] == str(pid)
        manager.wait_for("WATCHDOG")
        os.kill(pid, signal.SIGTERM)
        manager.wait_for("STOPPING")
        assert manager.senders == {pid}


@pytest.mark.extended
def test_in_development_the_launcher_reports_in_place_of_the_site(
    shop: Shop, manager: ServiceManager
) -> None:
    shop.configure(DEBUG=True, WSPBUS={"SERVERS": {"default": {**KINDS["threaded"], "BIND": "127.0.0.1:0"}}})
    with serve(shop, manager, WATCHDOG_USEC="200000") as site:
        assert manager.wait_for("READY")["WATCHDOG_USEC"] == "0"
        assert site.stop() == 0
        assert names_of(manager) == ["READY", "STOPPING"]
        assert manager.senders == {site.pid}


@pytest.mark.extended
@pytest.mark.parametrize(
    "name", ["/no/such.sock", "/etc/passwd", "@", "vsock:2:1", "x" * 200, "/" + "x" * 200]
)
def test_a_missing_or_broken_service_manager_does_no_harm(shop: Shop, name: str) -> None:
    configure(shop, {"default": KINDS["threaded"]})
    with shop.serve(NOTIFY_SOCKET=name, WATCHDOG_USEC="1000") as site:
        assert ask(address_of(site))[0] == 200
        assert site.stop() == 0
