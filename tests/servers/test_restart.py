"""``restart``: a new program for the same process, which takes over the sockets and the children."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.plugins.test_privileges import (  # noqa: F401  # fixtures among them
    NOBODY,
    interpreter,
    open_folder,
    search_path,
)
from tests.processes import DEADLINE, Running, RunningSite

from .conftest import GUNICORN, KINDS, THREADED, address_of, ask, configure, is_free, release
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

Later = Callable[..., Future[Any]]

BANNER = "^Quit with"
BOTH: dict[str, dict[str, Any]] = {
    "child": {"BACKEND": GUNICORN, "OPTIONS": {"threads": 4}},
    "thread": {"BACKEND": THREADED},
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "project"
    folder.mkdir()
    return Shop(folder)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a name that is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def restart(site: Running, count: int = 2) -> None:
    """Restart a site; ``count``: which of its programs is to be up then."""
    site.send(signal.SIGUSR2)
    line = site.wait_for_line(f"{BANNER}|The restart failed", count=count).string
    assert line.startswith("Quit with")


def latest_address(site: RunningSite, alias: str) -> str:
    """Return where a server listens, as the latest banner has it."""
    lines = [line for line in site.lines if line.startswith(f"  {alias} ")]
    return lines[-1].split("http://")[1].partition("/")[0]


# A good one


@pytest.mark.parametrize("kind", KINDS)
def test_under_load_no_request_fails_and_the_process_stays_the_same(
    shop: Shop, short: Path, kind: str
) -> None:
    path = short / "site.sock"
    configure(shop, {"default": {**KINDS[kind], "BIND": ["127.0.0.1:0", f"unix:{path}"]}}, PIDFILE="site.pid")
    in_process = kind == "threaded"
    with shop.serve("-v2") as site:
        addresses = addresses_of(site)
        before = pids(site)
        inodes = path.stat().st_ino, (shop.root / "site.pid").stat().st_ino
        with Load(addresses, keep_alive=1, one_shot=1, slow=1, paths=["/try/status"]) as load:
            load.wait_for(lambda answer: True, 20)
            new = shop.deploy()
            restart(site)
            load.wait_for_all(lambda answer: answer.version in (new, None))
            answers = load.finish()
        assert site.process.poll() is None
        await_that(lambda: len(pids(site)) == len(before), site.members)

        assert pids(site) & before == {site.pid}
        began = min(answer.began for answer in answers if answer.version == new)
        assert {answer.version for answer in answers if answer.began > began + 2} <= {new, None}
        assert (path.stat().st_ino, (shop.root / "site.pid").stat().st_ino) == inodes
        assert (shop.root / "site.pid").read_text() == f"{site.pid}\n"
        assert status_of(addresses[0])["pid"] == site.pid
        assert site.stop() == 0
        assert site.members() == []
        assert all(map(is_free, addresses))
        assert not path.exists()

    assert not (shop.root / "site.pid").exists()
    assert [note.pid for note in shop.notes("site start")] == [site.pid] * 2
    assert [note.pid for note in shop.notes("site stop")] == [site.pid] * 2
    started = [note.pid for note in shop.notes("worker start")]
    assert sorted(started) == sorted(note.pid for note in shop.notes("worker stop"))
    if not in_process:
        assert len(started) == len(set(started)) == 2 * KINDS[kind]["OPTIONS"]["workers"]
    assert shop.notes("site graceful") == []


def test_the_page_that_asks_for_it_is_answered_after_the_trial(shop: Shop) -> None:
    configure(shop, BOTH)
    with shop.serve("-v2") as site:
        for count, alias in enumerate(BOTH, 1):
            address = address_of(site, alias)
            new = shop.deploy()
            assert attempt(address, "restart")["result"] is None
            site.wait_for_line(BANNER, count=count + 1)
            for each in BOTH:
                await_version(address_of(site, each), new)
        assert site.stop() == 0


def test_the_settings_are_read_again(shop: Shop) -> None:
    configure(shop, BOTH, PIDFILE="site.pid")
    with shop.serve("-v2") as site:
        address = address_of(site, "child")
        configure(shop, BOTH, PIDFILE="other.pid", HEALTH="127.0.0.1:0", SIGNALS={"SIGHUP": "shop.hangup"})
        shop.listeners("bus.subscribe('shop.hangup', lambda: note('hung up'), role='site')\n")
        restart(site)
        assert "  probes " in site.output
        assert (shop.root / "other.pid").read_text() == f"{site.pid}\n"
        assert not (shop.root / "site.pid").exists()
        site.send(signal.SIGHUP)
        shop.expect_note("hung up")
        assert ask(address)[0] == 200
        configure(shop, BOTH)
        restart(site, 3)
        assert not (shop.root / "other.pid").exists()
        assert site.stop() == 0


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


def test_what_the_old_code_is_answering_is_answered_over_several_restarts(shop: Shop, later: Later) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        page = later(ask, address, "/held/page")
        shop.expect_note("page waits")
        old = status_of(address)["servers"]["default"]["pid"]
        for count in (2, 3):
            restart(site, count)
            assert old in status_of(address)["servers"]["default"]["leaving"]
        release(shop, "page")
        assert page.result() == (200, "page answered")
        await_that(lambda: status_of(address)["servers"]["default"]["leaving"] == [])
        assert old not in pids(site)
        assert site.stop() == 0


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


def test_servers_come_and_go_beside_one_that_stays(shop: Shop, short: Path) -> None:
    stays = {"BACKEND": GUNICORN, "OPTIONS": {"threads": 4}}
    bound = f"unix:{short / 'goes.sock'}"
    configure(
        shop, {"goes": {**stays, "BIND": ["127.0.0.1:0", bound]}, "stays": stays, "went": BOTH["thread"]}
    )
    with shop.serve("-v2") as site:
        address, gone = (
            address_of(site, "stays"),
            [latest_address(site, "goes"), bound, address_of(site, "went")],
        )
        with Load(address, slow=0) as load:
            load.wait_for_all()
            configure(shop, {"stays": stays, "comes": stays, "came": BOTH["thread"]})
            new = shop.deploy()
            restart(site)
            for alias in ("comes", "came"):
                assert version_of(latest_address(site, alias)) == new
            assert all(map(is_free, gone))
            assert not (short / "goes.sock").exists()
            load.wait_for_all(lambda answer: answer.version == new)
            load.finish()
        assert set(status_of(address)["servers"]) == {"stays", "comes", "came"}
        await_that(lambda: len(pids(site)) == 5, site.members)
        assert site.stop() == 0


def test_options_that_changed_take_effect(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1}}})
    with shop.serve("-v2") as site:
        address = address_of(site)
        for count, workers in enumerate((3, 2), 2):
            configure(shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": workers}}})
            restart(site, count)
            assert len(status_of(address)["servers"]["default"]["workers"]) == workers
            await_value(lambda: len(pids(site)), 2 + workers)
        assert site.stop() == 0


def test_a_backend_may_take_the_place_of_the_other(shop: Shop) -> None:
    kinds = {"gthread": KINDS["gthread"], "threaded": KINDS["threaded"]}
    configure(shop, {"default": kinds["threaded"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        with Load(address, keep_alive=0, slow=1) as load:
            for count, kind in enumerate(("gthread", "threaded", "gthread"), 2):
                load.wait_for(lambda answer: answer.version == shop.version, 5)
                configure(shop, {"default": kinds[kind]})
                new = shop.deploy()
                restart(site, count)
                await_version(address, new)
                assert (json.loads(ask(address, "/version/")[1])["pid"] == site.pid) == (kind == "threaded")
            load.finish()
        await_that(lambda: len(pids(site)) == 4, site.members)
        assert site.stop() == 0


def test_an_option_of_the_command_line_is_for_the_one_server_whatever_its_name(shop: Shop) -> None:
    server = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1}}
    configure(shop, {"default": server})
    with shop.serve("-v2", "--workers", "3") as site:
        assert len(status_of(address_of(site))["servers"]["default"]["workers"]) == 3
        configure(shop, {"renamed": server})
        restart(site)
        status = status_of(address_of(site, "renamed"))
        assert len(status["servers"]["renamed"]["workers"]) == 3
        assert site.stop() == 0


ADDED = """
import time

from django_wspbus import bus

from .wsgi import application

bus.subscribe("start", lambda: time.sleep(3))
"""


def test_a_server_that_is_added_has_the_whole_time_to_become_ready(shop: Shop) -> None:
    stays = {"default": {"BACKEND": GUNICORN}}
    configure(shop, stays, READY_TIMEOUT=6)
    with shop.serve("-v2") as site:
        site.wait_for_line(BANNER)
        shop.write("shop/added.py", ADDED)
        added = {"BACKEND": GUNICORN, "APPLICATION": "shop.added.application"}
        configure(shop, {**stays, "added": added}, READY_TIMEOUT=6)
        with (shop.root / "settings.py").open(
            "a"
        ) as settings:  # which the others import before it is started
            settings.write(
                "import time\n\nif 'added' not in open('/proc/self/cmdline').read():\n    time.sleep(3.5)\n"
            )
        site.send(signal.SIGUSR2)
        told = site.wait_for_line("Restarting after|The restart failed").string
        assert "The restart failed" not in told


# What a project does besides


def test_a_project_that_changes_the_directory_does_not_keep_it_from_the_command_line(shop: Shop) -> None:
    configure(shop, BOTH)
    shop.listeners("import os\n\nos.chdir('/')\n")
    with shop.start("manage.py", "runbus", "-v2") as site:
        site.wait_for_line(BANNER)
        for count in (2, 3):
            restart(site, count)
        assert site.stop() == 0


def test_a_thread_of_the_project_does_not_hold_up_the_trial(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": THREADED}}, READY_TIMEOUT=15)
    shop.listeners(
        "import threading\n\ndone = threading.Event()\nthreading.Thread(target=done.wait).start()\n"
        "bus.subscribe('stop', done.set)\n"
    )
    with shop.serve("-v2") as site:
        site.wait_for_line(BANNER)
        restart(site)
        assert site.stop() == 0


def test_an_output_that_nobody_reads_any_more_does_not_end_it(shop: Shop) -> None:
    configure(shop, BOTH, PIDFILE="site.pid")
    with shop.start("sh", "-c", f"{sys.executable} manage.py runbus | head -n 4") as shell:
        address = address_of(shell, "child")  # type: ignore[arg-type]
        pid = int((shop.root / "site.pid").read_text())
        await_that(lambda: "head" not in {process.name() for process in shell.members()}, shell.members)
        shop.deploy()
        os.kill(pid, signal.SIGUSR2)
        shop.expect_note("site start", 2)
        await_that(lambda: status_of(address)["condition"] == "ready")
        os.kill(pid, signal.SIGTERM)
        await_that(lambda: not shell.members(), shell.members)


@pytest.mark.parametrize("priority", [50, 90], ids=["before", "after"])
def test_a_child_that_dies_while_the_new_program_starts_is_started_again(shop: Shop, priority: int) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        shop.listeners(held_start(priority))
        site.send(signal.SIGUSR2)
        shop.expect_note("held")
        master = psutil.Process(status_of(address)["servers"]["default"]["pid"])
        master.kill()
        master.wait(DEADLINE)
        release(shop, "go")
        site.wait_for_line(BANNER, count=2)
        await_that(lambda: len(pids(site)) == 4, site.members)
        assert version_of(address) == 1
        assert site.stop() == 0


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
        assert site.wait(5) == 0
        assert site.members() == []


# After root has been given up


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
    ports = random.sample(range(600, 1000), 400)  # those for which one has to be root
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
            assert {process.uids().real for process in site.members()} == {NOBODY.pw_uid}
        os.kill(pid, signal.SIGTERM)
        await_that(lambda: not site.members(), site.members)
        assert is_free(binds[0])
