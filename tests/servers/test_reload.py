"""``graceful``: new children in place of the old, on the same sockets, through the gate."""

from __future__ import annotations

import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import RunningSite

from .conftest import GUNICORN, KINDS, address_of, ask, configure, descriptors, release
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

Later = Callable[..., Future[Any]]

RELOADED = r"Reloaded after"
FAILED = r"The reload failed, and the old code serves on"

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


def reload(site: RunningSite, count: int = 1) -> None:
    site.send(signal.SIGUSR1)
    site.wait_for_line(RELOADED, count=count)


# A good one


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_under_load_no_request_fails_and_the_new_code_answers(shop: Shop, short: Path, kind: str) -> None:
    server = {**KINDS[kind], "BIND": ["127.0.0.1:0", f"unix:{short}/site.sock"]}
    configure(shop, {"default": server})
    with shop.serve("-v2") as site:
        addresses = addresses_of(site)
        old = set(status_of(addresses[0])["servers"]["default"]["workers"])
        before = pids(site)
        with Load(addresses, keep_alive=2, one_shot=1, slow=1, think=0.005) as load:
            load.wait_for(lambda answer: True, 40)  # and the slow ones are under way
            new = shop.deploy()
            reload(site)
            load.wait_for_all(lambda answer: answer.version == new)
            answers = load.finish()
        await_value(lambda: len(pids(site)), len(before))

        assert pids(site) & before == {site.pid}
        reloaded_by = min(answer.began for answer in answers if answer.version == new)
        assert {answer.pid for answer in answers if answer.version == 1} <= old
        assert {answer.pid for answer in answers if answer.version == new}.isdisjoint(old)
        # A second for the slow page: what is accepted by the old ones, they answer.
        assert all(answer.version == new for answer in answers if answer.began > reloaded_by + 2)
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


def test_what_is_in_the_site_process_keeps_its_code_and_a_line_says_so(shop: Shop) -> None:
    configure(shop, {"child": KINDS["gthread"], "thread": KINDS["threaded"]})
    with shop.serve("-v2") as site:
        child, thread = address_of(site, "child"), address_of(site, "thread")
        shop.deploy()
        reload(site)
        await_version(child, 2)
        assert version_of(thread) == 1
        (line,) = [line for line in site.lines if "Reloading" in line]
        assert "'thread'" in line
        assert "'child'" not in line
        assert "keeps its code until a restart" in line
        assert site.stop() == 0

    for role in ("site", "worker"):
        assert [note.pid for note in shop.notes(f"{role} graceful")] == [site.pid]
    assert [note.pid for note in shop.notes("worker start")].count(site.pid) == 1
    assert len(shop.notes("site start")) == 1


def test_without_children_it_is_told_to_the_listeners_and_broken_code_stays_on_disk(shop: Shop) -> None:
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


def test_options_are_those_on_disk(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1}}})
    with shop.serve("-v2") as site:
        address = address_of(site)
        assert len(status_of(address)["servers"]["default"]["workers"]) == 1
        configure(shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 3}}})
        reload(site)
        assert len(status_of(address)["servers"]["default"]["workers"]) == 3
        assert site.stop() == 0


def test_what_the_old_code_is_answering_is_answered_over_several_reloads(shop: Shop, later: Later) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        pages = []
        for count in range(1, 4):
            pages.append(later(ask, address, f"/held/page{count}"))
            shop.expect_note(f"page{count} waits")
            shop.deploy()
            reload(site, count)
            await_version(address, shop.version)
        status = status_of(address)["servers"]["default"]
        assert len(status["leaving"]) == 3
        assert status["pid"] not in status["leaving"]
        for count, page in reversed(list(enumerate(pages, 1))):
            release(shop, f"page{count}")
            assert page.result() == (200, f"page{count} answered")
        await_that(lambda: status_of(address)["servers"]["default"]["leaving"] == [], site.members)
        assert site.stop() == 0


# The gate


@pytest.fixture
def two_servers(shop: Shop) -> Iterator[RunningSite]:
    """A site of two servers; in the code on disk that of the server ``late`` is held as it starts."""
    # One that is hardly patient with its workers: at the gate they are not hung.
    early = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2, "timeout": 1}}
    configure(shop, {"early": early, "late": {**KINDS["gthread"], "APPLICATION": "shop.late.application"}})
    shop.write("shop/late.py", "from .wsgi import application\n")
    with shop.serve("-v2") as site:
        site.wait_for_line("^Quit with")
        shop.write("shop/late.py", LATE)
        yield site


def test_nothing_new_answers_before_all_servers_are_ready(shop: Shop, two_servers: RunningSite) -> None:
    site = two_servers
    early, late = address_of(site, "early"), address_of(site, "late")
    with Load(early, slow=0) as early_load, Load(late, slow=0) as late_load:
        shop.deploy()
        site.send(signal.SIGUSR1)
        shop.expect_note("held", 2)
        shop.expect_note("worker start", 8)  # those of the other server wait at the gate
        time.sleep(2.5)  # longer than gunicorn's patience
        assert not [line for line in site.lines if "TIMEOUT" in line]
        released = time.monotonic()
        release(shop, "go")
        for load in (early_load, late_load):
            load.wait_for_all(lambda answer: answer.version == 2)
            answers = load.finish()
            assert min(answer.ended for answer in answers if answer.version == 2) > released
    assert len(shop.notes("worker start")) == 8
    assert site.stop() == 0


def test_if_one_server_fails_none_switches(shop: Shop, two_servers: RunningSite) -> None:
    site = two_servers
    early, late = address_of(site, "early"), address_of(site, "late")
    before = pids(site)
    shop.write("shop/late.py", f"{LATE}    raise ValueError('too late')\n")
    with Load(early, slow=0) as early_load, Load(late, slow=0) as late_load:
        shop.deploy()
        site.send(signal.SIGUSR1)
        shop.expect_note("held", 2)
        new = {note.pid for note in shop.expect_note("worker start", 8)} - before
        release(shop, "go")
        told = site.wait_for_line(FAILED)
        answers = early_load.finish() + late_load.finish()
    assert "the server 'late' did not start" in told.string
    assert {answer.version for answer in answers} == {1}
    assert {answer.pid for answer in answers} <= before
    assert pids(site) == before
    # The workers that never served have stopped what they had started.
    stopped = {note.pid for note in shop.notes("worker stop")}
    assert new <= stopped
    assert stopped.isdisjoint(before)
    assert site.stop() == 0


# Asked again


def test_one_asked_for_during_another_brings_the_newest_code(shop: Shop, later: Later) -> None:
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
        asked = later(attempt, address, "graceful")
        site.send(signal.SIGUSR1)
        assert status_of(address)["condition"] == "reloading"
        release(shop, "go")

        assert asked.result()["result"] is None
        await_version(address, newest)
        assert status_of(address)["condition"] == "ready"
        # Both share the next one, unless the request has come only after that had begun.
        assert len([line for line in site.lines if "Reloading" in line]) in (2, 3)
        assert site.stop() == 0


def test_one_that_is_published_during_another_is_refused(shop: Shop) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        good = (shop.root / "shop" / "listeners.py").read_text()
        shop.listeners(HELD_START)
        new = shop.deploy()
        site.send(signal.SIGUSR1)
        shop.expect_note("held", 2)
        shop.write("shop/listeners.py", good)
        error = attempt(address, "publish:graceful")["error"]
        release(shop, "go")

        assert "A reload is under way already: call bus.graceful(), which waits." in error
        await_version(address, new)
        assert status_of(address)["last_failure"] is None
        assert site.stop() == 0


def test_many_signals_at_once_cause_two_swaps_at_most(shop: Shop) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        newest = shop.deploy()
        for _ in range(100):
            site.send(signal.SIGUSR1)
        site.wait_for_line(RELOADED)
        # It answers during a swap, which it tells of, or when there is no other to come.
        await_that(lambda: status_of(address)["condition"] == "ready")
        await_version(address, newest)
        assert 1 <= len([line for line in site.lines if "Reloading" in line]) <= 2
        assert site.stop() == 0


# An exit meanwhile

HANG = """
import signal
import time

from .journal import note


def hang():
    note("hangs")
    time.sleep(60)
"""
HANGS = {
    "boot": ("shop/models.py", f"{HANG}\n\nhang()\n"),
    "deaf boot": ("shop/models.py", f"{HANG}\n\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nhang()\n"),
    "start listener": (
        "shop/listeners.py",
        f"from django_wspbus import bus\n{HANG}\n\nbus.subscribe('start', hang)\n",
    ),
}


@pytest.mark.parametrize("where", HANGS)
def test_an_exit_ends_what_hangs_first_and_answers_what_is_in_flight(
    shop: Shop, later: Later, where: str
) -> None:
    configure(shop, {"default": KINDS["gthread"], "other": KINDS["sync"]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        page = later(ask, address, "/held/page")
        shop.expect_note("page waits")
        old = site.members()
        name, source = HANGS[where]
        shop.write(name, source)
        site.send(signal.SIGUSR1)
        shop.expect_note("hangs", 2)
        new = [process for process in site.members() if process not in old]
        assert len(new) >= 2
        site.send(signal.SIGTERM)
        _, left = psutil.wait_procs(new, timeout=10)

        assert left == []
        assert site.process.poll() is None
        assert not page.done()
        release(shop, "page")
        assert page.result() == (200, "page answered")
        assert site.wait() == 0
        assert site.members() == []
        assert "Traceback" not in site.output
        assert "The reload was given up: the site exits." in site.output


def test_one_that_is_asked_for_during_an_exit_starts_nothing(shop: Shop, later: Later) -> None:
    configure(shop, {"default": KINDS["gthread"]})
    with shop.serve("-v2") as site:
        page = later(ask, address_of(site), "/held/page")
        shop.expect_note("page waits")
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
            assert pids(site) == before
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

CONNECTION = """
import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "connections"


@bus.lifespan
def connection():
    path = FOLDER / str(os.getpid())
    path.touch()
    yield
    path.unlink()
"""


def test_a_start_listener_must_not_claim_what_the_old_code_still_holds(shop: Shop) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN}})
    shop.listeners(LOCK)
    with shop.serve("-v2") as site:
        address = address_of(site)
        before = pids(site)
        for _ in range(2):
            assert "FileExistsError" in attempt(address, "graceful")["error"]
            assert (shop.root / "lock").exists()
            assert pids(site) == before
        assert site.output.count("FileExistsError: ") == 2
        shop.listeners("")
        shop.deploy()
        reload(site)
        await_version(address, 2)
        await_that(lambda: not (shop.root / "lock").exists())
        assert site.stop() == 0


def test_while_both_generations_live_there_are_twice_the_connections(shop: Shop, later: Later) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2}}})
    shop.listeners(CONNECTION)
    connections = shop.root / "connections"
    connections.mkdir()

    def count() -> int:
        return len(list(connections.iterdir()))

    with shop.serve("-v2") as site:
        address = address_of(site)
        assert count() == 2
        names = ("one", "two")  # both workers are at work, and so stay for a while
        pages = [later(ask, address, f"/held/{name}") for name in names]
        for name in names:
            shop.expect_note(f"{name} waits")
        reload(site)
        assert count() == 4
        for name in names:
            release(shop, name)
        assert [page.result()[0] for page in pages] == [200, 200]
        await_that(lambda: count() == 2)
        assert site.stop() == 0
    assert count() == 0


# A site that does not serve


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
