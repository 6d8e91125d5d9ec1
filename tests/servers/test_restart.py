"""``restart``: a new program for the same process, which takes over the sockets and the children."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.plugins.test_privileges import (  # noqa: F401  # fixtures among them
    NOBODY,
    interpreter,
    open_folder,
    search_path,
)
from tests.processes import Running

from .clients import is_free
from .conftest import BOTH, GUNICORN, KINDS, THREADED, Later, address_of, configure, hold, kill, release
from .load import (
    Load,
    Shop,
    addresses_of,
    attempt,
    await_that,
    await_value,
    await_version,
    held_start,
    pids,
    status_of,
    version_of,
)

BANNER = "^Quit with"


def restart(site: Running, count: int = 2) -> None:
    """Restart a site; ``count``: which of its programs is to be up then."""
    site.send(signal.SIGUSR2)
    line = site.wait_for_line(f"{BANNER}|The restart failed", count=count).string
    assert line.startswith("Quit with")


# A good one


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_under_load_no_request_fails_and_the_process_stays_the_same(
    shop: Shop, short: Path, kind: str
) -> None:
    kinds = {"child": KINDS[kind], "thread": KINDS["threaded"]}
    paths = {alias: short / f"{alias}.sock" for alias in kinds}
    servers = {
        alias: {**server, "BIND": ["127.0.0.1:0", f"unix:{paths[alias]}"]} for alias, server in kinds.items()
    }
    configure(shop, servers, PIDFILE="site.pid")
    files = [*paths.values(), shop.root / "site.pid"]
    with shop.serve("-v2") as site:
        addresses = [address for alias in servers for address in addresses_of(site, alias)]
        before = pids(site)
        inodes = [file.stat().st_ino for file in files]
        with Load(addresses, keep_alive=1, one_shot=1, slow=1, paths=["/try/status"], think=0.05) as load:
            load.wait_for_all()
            new = shop.deploy()
            restart(site)
            load.wait_for_all(lambda answer: answer.version in (new, None))
            load.finish()
        assert site.process.poll() is None
        await_that(lambda: len(pids(site)) == len(before), site.members)

        assert pids(site) & before == {site.pid}
        assert [file.stat().st_ino for file in files] == inodes
        assert (shop.root / "site.pid").read_text() == f"{site.pid}\n"
        assert status_of(addresses[0])["pid"] == site.pid
        assert site.stop() == 0
        assert site.members() == []
        assert all(map(is_free, addresses))

    assert [file for file in files if file.exists()] == []
    assert [note.pid for note in shop.notes("site start")] == [site.pid] * 2
    assert [note.pid for note in shop.notes("site stop")] == [site.pid] * 2
    started = [note.pid for note in shop.notes("worker start")]
    assert sorted(started) == sorted(note.pid for note in shop.notes("worker stop"))
    assert started.count(site.pid) == 2
    assert len(started) == 2 + 2 * KINDS[kind]["OPTIONS"]["workers"]
    assert len(set(started)) == len(started) - 1
    assert shop.notes("site graceful") == []


@pytest.mark.extended
@pytest.mark.usefixtures("new_interpreters")
def test_the_settings_are_read_again(shop: Shop) -> None:
    configure(shop, BOTH, PIDFILE="site.pid")
    more = {"child": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 3}}, "thread": KINDS["threaded"]}
    with shop.serve("-v2") as site:
        address = address_of(site, "child")

        def workers() -> int:
            return len(status_of(address)["servers"]["child"]["workers"])

        assert workers() == 1
        configure(shop, more, PIDFILE="other.pid", HEALTH="127.0.0.1:0", SIGNALS={"SIGHUP": "shop.hangup"})
        shop.listeners("bus.subscribe('shop.hangup', lambda: note('hung up'), role='site')\n")
        restart(site)
        assert workers() == 3
        assert "  probes " in site.output
        assert (shop.root / "other.pid").read_text() == f"{site.pid}\n"
        assert not (shop.root / "site.pid").exists()
        site.send(signal.SIGHUP)
        shop.expect_note("hung up")
        await_value(lambda: len(pids(site)), 5)
        assert site.stop() == 0


@pytest.mark.extended
@pytest.mark.usefixtures("new_interpreters")
def test_a_daemon_stays_the_process_that_it_is(shop: Shop) -> None:
    configure(shop, BOTH, DAEMONIZE={"STDOUT": "out.log", "STDERR": "out.log"}, PIDFILE="site.pid")
    log = shop.root / "out.log"
    with shop.start("manage.py", "runbus", "-v2") as foreground:
        assert foreground.wait() == 0
        pid = int((shop.root / "site.pid").read_text())
        foreground.lines += log.read_text().splitlines()
        address = address_of(foreground, "child")  # type: ignore[arg-type]
        for count, number in enumerate((signal.SIGUSR2, signal.SIGHUP), 2):
            new = shop.deploy()
            os.kill(pid, number)
            await_value(lambda: log.read_text().count("Quit with"), count)
            await_version(address, new)
            assert status_of(address)["pid"] == pid
            assert (shop.root / "site.pid").read_text() == f"{pid}\n"
        os.kill(pid, signal.SIGTERM)
        await_that(lambda: not foreground.members(), foreground.members)
        assert "Bus EXITED" in log.read_text().rpartition("Quit with")[2]
    assert not (shop.root / "site.pid").exists()


@pytest.mark.extended
@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGUSR2])
def test_what_the_old_code_is_answering_is_answered_over_a_reload_or_a_restart(
    shop: Shop, later: Later, how: signal.Signals
) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)

        def leaving() -> list[int]:
            pids: list[int] = status_of(address)["servers"]["default"]["leaving"]
            return pids

        first = status_of(address)["servers"]["default"]["pid"]
        page = hold(shop, later, address, "/held/page")
        new = shop.deploy()
        site.send(how)
        await_version(address, new)
        await_that(lambda: status_of(address)["condition"] == "ready")
        assert first in leaving()
        release(shop, "page")
        assert page.result() == (200, "page answered")
        await_value(leaving, [])
        await_that(lambda: len(pids(site)) == 4, site.members)
        assert site.stop() == 0


@pytest.mark.extended
def test_a_stopped_site_serves_the_new_code_after_it(shop: Shop) -> None:
    configure(shop, BOTH, PIDFILE="site.pid", SIGNALS={"SIGHUP": "stop"})
    with shop.serve("-v2") as site:
        addresses = [address_of(site, alias) for alias in BOTH]
        site.send(signal.SIGHUP)
        site.wait_for_line("Bus STOPPED")
        new = shop.deploy()
        restart(site)
        assert [version_of(address) for address in addresses] == [new, new]
        assert status_of(addresses[0])["pid"] == site.pid
        assert (shop.root / "site.pid").read_text() == f"{site.pid}\n"
        assert site.stop() == 0


# Servers that come, go and change


@pytest.mark.extended
def test_servers_come_go_and_change_beside_one_that_stays(shop: Shop, short: Path) -> None:
    child, thread = BOTH["child"], BOTH["thread"]
    goes = {**child, "BIND": ["127.0.0.1:0", f"unix:{short}/goes.sock"]}
    configure(shop, {"stays": child, "goes": goes, "went": thread, "turns": thread, "returns": child})
    with shop.serve("-v2") as site:
        stays, went = address_of(site, "stays"), address_of(site, "went")
        turns, returns = address_of(site, "turns"), address_of(site, "returns")
        gone = [*addresses_of(site, "goes"), went]
        with Load([stays, turns, returns], keep_alive=1, one_shot=1, slow=0, think=0.05) as load:
            load.wait_for_all()
            new_servers = {"stays": child, "came": thread, "turns": child, "returns": thread}
            configure(shop, new_servers)
            new = shop.deploy()
            restart(site)
            assert version_of(address_of(site, "came")) == new
            load.wait_for_all(lambda answer: answer.version == new)
            load.finish()
        await_that(lambda: all(map(is_free, gone)))
        assert not (short / "goes.sock").exists()
        assert set(status_of(stays)["servers"]) == set(new_servers)
        assert attempt(turns, "status")["pid"] != site.pid
        assert attempt(returns, "status")["pid"] == site.pid
        await_that(lambda: len(pids(site)) == 5, site.members)
        assert site.stop() == 0


ADDED = """
import time

from django_wspbus import bus

from .wsgi import application

bus.subscribe("start", lambda: time.sleep(10))
"""
SLOW_SETTINGS = """
import time

if "added" not in open("/proc/self/cmdline").read():
    time.sleep(10)
"""


@pytest.mark.extended
def test_a_server_that_is_added_has_the_whole_time_to_become_ready(shop: Shop) -> None:
    stays = {"default": {"BACKEND": GUNICORN}}
    configure(shop, stays, READY_TIMEOUT=18)
    with shop.serve("-v2") as site:
        site.wait_for_line(BANNER)
        shop.write("shop/added.py", ADDED)
        added = {"BACKEND": GUNICORN, "APPLICATION": "shop.added.application"}
        configure(shop, {**stays, "added": added}, READY_TIMEOUT=18)
        with (shop.root / "settings.py").open("a") as settings:
            # The site and the other child import them before the added child is started.
            settings.write(SLOW_SETTINGS)
        site.send(signal.SIGUSR2)
        line = site.wait_for_line("Restarting after|The restart failed").string
        assert "The restart failed" not in line


# What a project does besides


@pytest.mark.extended
def test_the_command_line_is_kept_whatever_the_directory_and_the_name_of_the_server(shop: Shop) -> None:
    server = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1}}
    configure(shop, {"default": server})
    shop.listeners("import os\n\nos.chdir('/')\n")
    with shop.start("manage.py", "runbus", "-v2", "--workers", "3", "--threads", "2") as site:
        for alias in ("default", "renamed"):
            if alias == "renamed":
                configure(shop, {alias: server})
                restart(site)
            address = site.wait_for_line(rf"^  {alias} +http://(\S+)/")[1]
            assert len(status_of(address)["servers"][alias]["workers"]) == 3
        assert site.stop() == 0


@pytest.mark.extended
def test_a_thread_of_the_project_does_not_delay_the_dry_run(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": THREADED}}, READY_TIMEOUT=15)
    shop.listeners(
        "import threading\n\ndone = threading.Event()\nthreading.Thread(target=done.wait).start()\n"
        "bus.subscribe('stop', done.set)\n"
    )
    with shop.serve("-v2") as site:
        site.wait_for_line(BANNER)
        restart(site)
        assert site.stop() == 0


@pytest.mark.extended
def test_an_output_without_a_reader_does_not_end_the_site(shop: Shop) -> None:
    configure(shop, BOTH, PIDFILE="site.pid")
    with shop.start("sh", "-c", f"{sys.executable} manage.py runbus | head -n 4") as shell:
        address = address_of(shell, "child")  # type: ignore[arg-type]
        pid = int((shop.root / "site.pid").read_text())
        await_that(lambda: "head" not in shell.names(), shell.members)
        shop.deploy()
        os.kill(pid, signal.SIGUSR2)
        shop.expect_note("site start", 2)
        await_that(lambda: status_of(address)["condition"] == "ready")
        os.kill(pid, signal.SIGTERM)
        await_that(lambda: not shell.members(), shell.members)


@pytest.mark.extended
@pytest.mark.parametrize("priority", [50, 90], ids=["before the servers", "after"])
def test_a_child_that_dies_while_the_new_program_starts_is_started_again(shop: Shop, priority: int) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        shop.listeners(held_start(priority))
        site.send(signal.SIGUSR2)
        shop.expect_note("held")
        kill(psutil.Process(status_of(address)["servers"]["default"]["pid"]))
        release(shop, "go")
        site.wait_for_line(BANNER, count=2)
        await_that(lambda: len(pids(site)) == 4, site.members)
        assert version_of(address) == 1
        assert site.stop() == 0


@pytest.mark.extended
def test_an_exit_that_a_worker_asks_for_at_the_last_moment_is_not_lost(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN}})
    shop.listeners(
        "import threading\nimport time\nfrom pathlib import Path\n\n\ndef linger():\n"
        "    while not Path('go').exists():\n        time.sleep(0.01)\n\n\n"
        "bus.subscribe('stop', lambda: threading.Thread(target=linger).start(), role='site')\n"
    )
    with shop.serve("-v2") as site:
        address = address_of(site)
        site.send(signal.SIGUSR2)
        site.wait_for_line("Waiting for thread")
        assert attempt(address, "exit")["result"] is None
        release(shop, "go")
        await_that(lambda: site.process.poll() is not None or site.lines.count("Quit with CONTROL-C.") == 2)
        assert site.wait() == 0
        assert site.members() == []


# After root has been given up


def users_of(site: Running) -> set[int]:
    found = set()
    for process in site.members():
        with contextlib.suppress(psutil.NoSuchProcess):  # those that have been replaced end
            found.add(process.uids().real)
    return found


@pytest.mark.extended
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")
@pytest.mark.parametrize("daemonize", [False, True])
def test_what_root_has_bound_and_opened_stays_with_the_user(
    open_folder: Path,  # noqa: F811
    interpreter: str,  # noqa: F811
    daemonize: bool,
) -> None:
    shop = Shop(open_folder)
    (open_folder / "journal.txt").touch()
    (open_folder / "journal.txt").chmod(0o666)
    run = open_folder / "run"
    run.mkdir()
    # Ports for which one has to be root; first one that no other process of the tests tries first.
    ports = [600 + (os.getpid() + each) % 400 for each in range(400)]
    tcp = next(address for port in ports if is_free(address := f"127.0.0.1:{port}"))
    binds = [tcp, f"unix:{run}/site.sock"]
    servers = {**BOTH, "child": {**BOTH["child"], "BIND": binds}}
    log = run / "site.log"
    outputs = {"STDOUT": str(log), "STDERR": str(log)}
    configure(
        shop, servers, USER="nobody", PIDFILE=f"{run}/site.pid", DAEMONIZE=outputs if daemonize else False
    )
    with shop.start(interpreter, "manage.py", "runbus", "-v2", **search_path(interpreter)) as site:
        if daemonize:
            assert site.wait() == 0
        else:
            site.wait_for_line(BANNER)
        pid = int((run / "site.pid").read_text())
        inodes = [(run / name).stat().st_ino for name in ("site.sock", "site.pid")]

        def output() -> str:
            return log.read_text() if daemonize else site.output

        for _ in range(2):
            new = shop.deploy()
            os.kill(pid, signal.SIGUSR2)
            await_that(lambda: "failed" in output() or version_of(binds[0]) == shop.version, output)
            assert "failed" not in output(), output()
            for bind in binds:
                await_version(bind, new)
            assert status_of(binds[1])["pid"] == pid
            assert [(run / name).stat().st_ino for name in ("site.sock", "site.pid")] == inodes
            assert users_of(site) == {NOBODY.pw_uid}
        os.kill(pid, signal.SIGTERM)
        await_that(lambda: not site.members(), site.members)
        assert is_free(binds[0])
