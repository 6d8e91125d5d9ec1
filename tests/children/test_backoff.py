"""Workers and children that die at each boot: growing waits, one line in the log, and no refused client."""

from __future__ import annotations

import itertools
import os
import signal
import urllib.error

import psutil
import pytest

from django_wspbus.system.backoff import FIRST, MOST, Backoff
from tests.processes import fetch

from ..servers.clients import ask
from ..servers.conftest import KINDS, Later, address_of, configure, kill, master_of, release
from ..servers.load import Load, Shop, await_that, pids, status_of

ATTEMPTS = 4
WAITS = [FIRST * 2**number for number in range(ATTEMPTS - 1)]
"""At least so many seconds after the first attempt, which is made at once, come the others."""

DYING_APPLICATION = """\
import os
import time

from django.core.wsgi import get_wsgi_application

from shop.journal import PATH, note

application = get_wsgi_application()
if PATH.with_name("die").exists():
    note(f"attempt {time.monotonic()}")
    os._exit(9)
"""

DYING_LISTENER = """\
import os
import time

from .journal import PATH


@bus.subscribe("start", role="worker")
def start():
    if PATH.with_name("die").exists():
        note(f"attempt {{time.monotonic()}}")
        {death}
    note("up")
"""


def attempts(shop: Shop) -> list[float]:
    return [float(note.event.split()[1]) for note in shop.notes() if note.event.startswith("attempt")]


def await_attempts(shop: Shop) -> None:
    """Wait for some, and assert that they get as rare as they should."""
    await_that(lambda: len(attempts(shop)) >= ATTEMPTS, lambda: attempts(shop))
    gaps = [after - before for before, after in itertools.pairwise(attempts(shop)[:ATTEMPTS])]
    assert len(gaps) == len(WAITS)
    assert all(gap >= wait for gap, wait in zip(gaps, WAITS, strict=True)), gaps


def test_the_wait_is_none_at_first_then_doubles_up_to_a_most_and_is_none_after_what_worked() -> None:
    backoff = Backoff()

    assert [backoff.note(worked=True), backoff.note(worked=True)] == [0, 0]
    assert [backoff.note(worked=False) for _ in range(4)] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert max(backoff.note(worked=False) for _ in range(2000)) == MOST
    assert backoff.note(worked=True) == 0
    assert [Backoff().note(worked=False), backoff.note(worked=False)] == [0, FIRST]


@pytest.mark.extended
def test_a_child_that_dies_at_once_every_time_is_started_ever_more_seldom_and_connections_wait(
    shop: Shop, later: Later
) -> None:
    shop.write("dying.py", DYING_APPLICATION)
    server = {**KINDS["gthread"], "APPLICATION": "dying.application"}
    configure(shop, {"default": server}, HEALTH="127.0.0.1:0")
    with shop.serve("-v2") as site:
        address = address_of(site)
        probes = site.wait_for_line(r"probes +(http://\S+?)/livez")[1]
        master = master_of(address)
        before = {process.pid for process in master.children()}
        release(shop, "die")
        master.kill()
        site.wait_for_line(
            "The server 'default' did not restart: it exited with status 9 before it was ready"
        )
        await_that(lambda: before.isdisjoint(pids(site)), site.members)
        waiting = [later(ask, address) for _ in range(3)]
        await_attempts(shop)

        assert [answer for answer in waiting if answer.done()] == []
        assert fetch(f"{probes}/livez")
        with pytest.raises(urllib.error.HTTPError) as unready:
            fetch(f"{probes}/readyz")
        with unready.value as error:
            assert error.read() == b"failed: the server 'default' does not serve: see the log\n"
        (shop.root / "die").unlink()
        answers = [answer.result() for answer in waiting]
        assert [(status, body.partition(" ")[2]) for status, body in answers] == [(200, "STARTED")] * 3
        assert before.isdisjoint(int(body.split()[0]) for _, body in answers)
        site.wait_for_line("The server 'default' answers again")
        assert fetch(f"{probes}/readyz")
        assert site.stop() == 0
        assert site.members() == []
    for once in ("was killed by SIGKILL; restarting it.", "did not restart: ", "answers again"):
        assert site.output.count(once) == 1
    assert site.output.count("with status 9") == 1


@pytest.mark.extended
@pytest.mark.parametrize(
    ("kind", "death"), [("gthread", "1 / 0"), pytest.param("sync", "os._exit(9)", marks=pytest.mark.extended)]
)
def test_a_worker_that_never_starts_is_tried_ever_more_seldom_and_the_others_serve_on(
    shop: Shop, kind: str, death: str
) -> None:
    shop.listeners(DYING_LISTENER.format(death=death))
    configure(shop, {"default": KINDS[kind]})
    with shop.serve("-v2") as site:
        address = address_of(site)
        server = status_of(address)["servers"]["default"]
        killed, *others = server["workers"]
        release(shop, "die")
        os.kill(killed, signal.SIGKILL)
        await_that(lambda: attempts(shop))
        with Load(address, slow=0, think=0.05) as load:
            await_attempts(shop)
            load.wait_for_all()
            answers = load.finish()
        assert {answer.pid for answer in answers} <= set(others)

        (shop.root / "die").unlink()
        *started, last = shop.expect_note("up", len(server["workers"]) + 1)
        assert {note.pid for note in started} == {killed, *others}
        await_that(lambda: last.pid in status_of(address)["servers"]["default"]["workers"])
        assert status_of(address)["servers"]["default"]["pid"] == server["pid"]
        assert site.stop() == 0
        assert site.members() == []
    raises = death == "1 / 0"
    assert site.output.count("A new worker of the server 'default' did not start: ") == raises
    assert site.output.count("Traceback") == raises
    assert site.output.count("; restarting it.") == 0
    boots = [line for line in site.lines if line.startswith("Worker (pid:")]  # by gunicorn
    assert ATTEMPTS <= len(boots) <= len(attempts(shop)) + 1


HANGING_APPLICATION = """\
import time

from shop.wsgi import application

from shop.journal import PATH, note

if PATH.with_name("hang").exists():
    PATH.with_name("hang").unlink()
    note("hangs")
    while True:
        time.sleep(0.01)
"""


@pytest.mark.extended
def test_a_reload_takes_the_place_of_one_that_hangs_while_it_is_started_again(
    shop: Shop, later: Later
) -> None:
    shop.write("hanging.py", HANGING_APPLICATION)
    configure(shop, {"default": {**KINDS["gthread"], "APPLICATION": "hanging.application"}})
    with shop.serve("-v2") as site:
        address = address_of(site)
        release(shop, "hang")
        master_of(address).kill()
        (hung,) = shop.expect_note("hangs")
        waiting = later(ask, address)
        site.send(signal.SIGUSR1)
        site.wait_for_line("Reloaded after")

        assert waiting.result()[0] == 200
        await_that(lambda: not psutil.pid_exists(hung.pid))
        assert site.stop() == 0
        assert site.members() == []
        assert "did not restart" not in site.output


HELD_START = """
@bus.subscribe("start", priority=60, role="site")  # before the servers
def hold():
    from .urls import ROOT, wait_for

    if (ROOT / "hold").exists():
        wait_for("go")
"""


@pytest.mark.extended
def test_a_child_that_is_lost_during_a_restart_and_cannot_start_is_tried_again(
    shop: Shop, later: Later
) -> None:
    shop.listeners(HELD_START)
    shop.write("dying.py", DYING_APPLICATION)
    configure(shop, {"default": {**KINDS["gthread"], "APPLICATION": "dying.application"}})
    with shop.serve("-v2") as site:
        address = address_of(site)
        release(shop, "hold")
        site.send(signal.SIGUSR2)
        shop.expect_note("go waits")
        master = master_of(address)
        release(shop, "die")
        kill(master)
        release(shop, "go")
        await_that(lambda: len(attempts(shop)) >= 2)
        waiting = later(ask, address)
        (shop.root / "die").unlink()

        assert waiting.result()[0] == 200
        site.wait_for_line("answers again")
        assert site.output.count("'default' did not start: it exited with status 9 before it was ready") == 1
        assert site.stop() == 0
        assert site.members() == []
