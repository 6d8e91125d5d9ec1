"""``graceful``: new children in place of the old, on the same sockets, released together."""

from __future__ import annotations

import resource
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite

from .conftest import GUNICORN, KINDS, Later, address_of, configure, descriptors, hold, release
from .load import (
    Load,
    Shop,
    addresses_of,
    attempt,
    await_that,
    await_value,
    await_version,
    pids,
    status_of,
    version_of,
)

RELOADED = r"Reloaded after"
FAILED = r"The reload failed; the old code keeps serving"

# A start listener of the workers that is held until the file ``go`` is there.
HELD_START = """
import time
from pathlib import Path

GO = Path(__file__).parent.parent / "go"


@bus.subscribe("start")
def held():
    note("held")
    while not GO.exists():
        time.sleep(0.01)
    note("let go")
"""

LATE = f"""
from django_wspbus import bus

from .journal import note
from .wsgi import application
{HELD_START}"""


def reload(site: RunningSite, count: int = 1) -> None:
    site.send(signal.SIGUSR1)
    site.wait_for_line(RELOADED, count=count)


# A good one


@pytest.mark.parametrize("kind", ["gthread", pytest.param("sync", marks=pytest.mark.extended)])
def test_under_load_no_request_fails_and_the_new_code_answers(shop: Shop, short: Path, kind: str) -> None:
    server = {**KINDS[kind], "BIND": ["127.0.0.1:0", f"unix:{short}/site.sock"]}
    configure(shop, {"default": server})
    with shop.serve("-v2") as site:
        addresses = addresses_of(site)
        old = set(status_of(addresses[0])["servers"]["default"]["workers"])
        before = pids(site)
        with Load(addresses, keep_alive=2, one_shot=1, slow=1, think=0.02) as load:
            load.wait_for(lambda answer: True, 20)  # and the slow ones are under way
            new = shop.deploy()
            reload(site)
            load.wait_for_all(lambda answer: answer.version == new)
            answers = load.finish()
        await_value(lambda: len(pids(site)), len(before))

        assert pids(site) & before == {site.pid}
        assert {answer.pid for answer in answers if answer.version == 1} <= old
        assert {answer.pid for answer in answers if answer.version == new}.isdisjoint(old)
        assert site.stop() == 0

    workers = int(server["OPTIONS"]["workers"])
    started = [note.pid for note in shop.notes("worker start")]
    stopped = [note.pid for note in shop.notes("worker stop")]
    assert len(started) == len(set(started)) == 2 * workers
    assert sorted(stopped) == sorted(started)
    assert set(stopped[:workers]) == old
    assert [note.pid for note in shop.notes("site start")] == [site.pid]
    assert [note.pid for note in shop.notes("site stop")] == [site.pid]
    assert shop.notes("worker graceful") == []


def test_children_have_the_code_and_options_on_disk_and_the_site_process_keeps_its_own(shop: Shop) -> None:
    servers = {"child": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1}}, "thread": KINDS["threaded"]}
    configure(shop, servers)
    with shop.serve("-v2") as site:
        child, thread = address_of(site, "child"), address_of(site, "thread")
        assert len(status_of(child)["servers"]["child"]["workers"]) == 1
        servers["child"]["OPTIONS"] = {"workers": 3}
        configure(shop, servers)
        shop.deploy()
        reload(site)
        await_version(child, 2)
        assert version_of(thread) == 1
        assert len(status_of(thread)["servers"]["child"]["workers"]) == 3
        (line,) = [line for line in site.lines if "Reloading" in line]
        assert "'thread'" in line
        assert "'child'" not in line
        assert "keeps its code until a restart" in line
        assert site.stop() == 0

    for role in ("site", "worker"):
        assert [note.pid for note in shop.notes(f"{role} graceful")] == [site.pid]
    assert [note.pid for note in shop.notes("worker start")].count(site.pid) == 1
    assert len(shop.notes("site start")) == 1


def test_without_children_only_the_listeners_run_and_broken_code_stays_on_disk(shop: Shop) -> None:
    configure(shop, {"default": KINDS["threaded"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        for name in ("settings.py", "shop/views.py", "shop/urls.py"):
            shop.write(name, "def (:\n")
        assert attempt(address, "graceful") == {"result": None, "pid": site.pid}
        assert version_of(address) == 1
        assert "Traceback" not in site.output
        assert len(shop.notes("worker graceful")) == 1
        assert site.stop() == 0


# Hold and release


@pytest.mark.extended
def test_no_server_switches_before_all_are_ready_nor_if_one_fails(shop: Shop) -> None:
    # gunicorn's own timeout is short: workers that wait to be released are not hung.
    early = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2, "timeout": 2}}
    configure(shop, {"early": early, "late": {**KINDS["gthread"], "APPLICATION": "shop.late.application"}})
    shop.write("shop/late.py", "from .wsgi import application\n")
    with shop.serve("-v2") as site:
        addresses = [address_of(site, alias) for alias in ("early", "late")]
        before = pids(site)
        shop.write("shop/late.py", f"{LATE}    raise ValueError('too late')\n")
        with Load(addresses, keep_alive=1, one_shot=1, slow=0, think=0.05) as load:
            load.wait_for_all()
            shop.deploy()
            site.send(signal.SIGUSR1)
            shop.expect_note("held", 2)
            failed = {note.pid for note in shop.expect_note("worker start", 8)} - before
            release(shop, "go")
            assert "the server 'late' did not start" in site.wait_for_line(FAILED).string
            await_value(lambda: pids(site), before)
            # The workers that never served have stopped what they had started.
            stopped = {note.pid for note in shop.notes("worker stop")}
            assert failed <= stopped
            assert stopped.isdisjoint(before)

            (shop.root / "go").unlink()
            shop.write("shop/late.py", LATE)
            newest = shop.deploy()
            site.send(signal.SIGUSR1)
            shop.expect_note("held", 4)
            shop.expect_note("worker start", 12)  # those of the other server wait to be released
            time.sleep(3.5)  # more than gunicorn's timeout
            assert not [line for line in site.lines if "TIMEOUT" in line]
            released = time.monotonic()
            release(shop, "go")
            load.wait_for_all(lambda answer: answer.version == newest)
            answers = load.finish()
        assert {answer.version for answer in answers} == {1, newest}
        assert {answer.pid for answer in answers if answer.version == 1} <= before
        assert min(answer.ended for answer in answers if answer.version == newest) > released
        assert len(shop.notes("worker start")) == 12
        assert site.stop() == 0


# Asked again


@pytest.mark.extended
def test_one_asked_for_during_another_brings_the_newest_code_and_one_published_is_refused(
    shop: Shop, later: Later
) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        good = (shop.root / "shop" / "listeners.py").read_text()
        shop.listeners(HELD_START)
        shop.deploy()
        site.send(signal.SIGUSR1)
        shop.expect_note("held", 2)
        shop.write("shop/listeners.py", good)
        newest = shop.deploy()
        refused = attempt(address, "publish:graceful")["error"]
        asked = later(attempt, address, "graceful")
        site.send(signal.SIGUSR1)
        assert status_of(address)["condition"] == "reloading"
        release(shop, "go")

        assert "A reload is under way already: call bus.graceful(), which waits." in refused
        assert asked.result()["result"] is None
        await_version(address, newest)
        await_that(lambda: status_of(address)["condition"] == "ready")
        assert status_of(address)["last_failure"] is None
        # The refused one has its line, too; both others share a reload unless it had begun already.
        assert site.output.count("Reloading the workers. ") in (3, 4)
        assert site.stop() == 0


@pytest.mark.extended
def test_many_signals_at_once_cause_two_swaps_at_most(shop: Shop) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        shop.listeners(HELD_START)  # so that no swap ends before the last signal
        newest = shop.deploy()
        for _ in range(100):
            site.send(signal.SIGUSR1)
        release(shop, "go")
        site.wait_for_line(RELOADED)
        # It answers during a swap, which it tells of, or when there is no other to come.
        await_that(lambda: status_of(address)["condition"] == "ready")
        await_version(address, newest)
        assert 1 <= len([line for line in site.lines if "Reloading" in line]) <= 2
        assert site.stop() == 0


# Side by side

LOCK = """
import os
from pathlib import Path

PATH = Path(__file__).parent.parent / "lock"


@bus.lifespan
def lock():
    os.close(os.open(PATH, os.O_CREAT | os.O_EXCL))
    yield
    PATH.unlink()
"""


@pytest.mark.extended
def test_a_start_listener_cannot_claim_what_the_old_workers_still_hold(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN}})
    shop.listeners(LOCK)
    with shop.serve("-v2") as site:
        address = address_of(site)
        assert "FileExistsError" in attempt(address, "graceful")["error"]
        assert (shop.root / "lock").exists()
        shop.listeners("")
        version = shop.deploy()
        assert "error" not in attempt(address, "graceful")
        await_version(address, version)
        await_that(lambda: not (shop.root / "lock").exists())
        assert site.stop() == 0


# An exit meanwhile

HANG = """
import signal
import time

from .journal import note


def hang():
    note("hangs")
    while True:
        time.sleep(0.01)
"""
HANGS = {
    "boot that ignores SIGTERM": (
        "shop/models.py",
        f"{HANG}\n\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nhang()\n",
    ),
    "start listener": (
        "shop/listeners.py",
        f"from django_wspbus import bus\n{HANG}\n\nbus.subscribe('start', hang)\n",
    ),
}


@pytest.mark.extended
@pytest.mark.parametrize(
    "where",
    ["boot that ignores SIGTERM", pytest.param("start listener", marks=pytest.mark.extended)],
)
def test_an_exit_ends_what_hangs_first_and_answers_what_is_in_flight(
    shop: Shop, later: Later, where: str
) -> None:
    configure(shop, {"default": KINDS["gthread"], "other": KINDS["sync"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        page = hold(shop, later, address, "/held/page")
        old = site.members()
        name, source = HANGS[where]
        shop.write(name, source)
        site.send(signal.SIGUSR1)
        shop.expect_note("hangs", 2)
        new = [process for process in site.members() if process not in old]
        assert len(new) >= 2
        site.send(signal.SIGTERM)
        assert psutil.wait_procs(new, DEADLINE)[1] == []  # before the request is answered

        assert site.process.poll() is None
        assert not page.done()
        release(shop, "page")
        assert page.result() == (200, "page answered")
        assert site.wait() == (70 if where == "start listener" else 0)
        assert site.members() == []
        assert "Traceback" not in site.output
        assert "The reload was given up: the site exits." in site.output


def test_one_that_is_asked_for_during_an_exit_starts_nothing(shop: Shop, later: Later) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        page = hold(shop, later, address_of(site), "/held/page")
        before = pids(site)
        site.send(signal.SIGTERM)
        site.wait_for_line("Bus STOPPING")
        site.send(signal.SIGUSR1)
        site.send(signal.SIGUSR2)
        release(shop, "page")
        assert page.result() == (200, "page answered")
        assert site.wait() == 0
        assert {note.pid for note in shop.notes("worker start")} <= before
        assert "Reload" not in site.output


# Without means


@pytest.mark.extended
def test_without_a_free_descriptor_it_fails_and_the_next_one_works(shop: Shop) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        before = pids(site)
        opened = fewest_descriptors(site.pid)
        limits = resource.prlimit(site.pid, resource.RLIMIT_NOFILE)
        shop.deploy()
        for spare in range(4):  # each may be what something else fails for
            resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (opened + spare, limits[1]))
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                site.send(number)
            site.wait_for_line("Too many open files|No descriptor was free", count=2 * spare + 2)
            assert version_of(address) == 1
            await_value(lambda: pids(site), before)
        resource.prlimit(site.pid, resource.RLIMIT_NOFILE, limits)
        reload(site)
        await_version(address, 2)
        assert site.stop() == 0


def fewest_descriptors(pid: int) -> int:
    """Return how many a process has open, but for those of a moment's business."""
    counts = []
    for _ in range(10):
        counts.append(descriptors(pid))
        time.sleep(0.02)
    return min(counts)


# A site that does not serve


@pytest.mark.extended
def test_one_of_a_stopped_site_does_not_make_it_serve(shop: Shop) -> None:
    configure(shop, {"default": KINDS["gthread"]}, SIGNALS={"SIGHUP": "stop", "SIGWINCH": "start"})
    with shop.serve("-v2") as site:
        address = address_of(site)
        site.send(signal.SIGHUP)
        site.wait_for_line("Bus STOPPED")
        shop.deploy()
        site.send(signal.SIGUSR1)
        site.wait_for_line("Caught signal SIGUSR1")
        site.send(signal.SIGWINCH)
        site.wait_for_line("Bus STARTED", count=2)
        await_version(address, 2)
        events = [note.event for note in shop.notes() if note.event.endswith((" start", "site stop"))]
        (stopped,) = [index for index, event in enumerate(events) if event == "site stop"]
        assert events[stopped + 1] == "site start"
        assert site.stop() == 0
