"""bus.site, from every process of a site and from one that belongs to none."""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_wspbus import SiteUnreachable, bus
from django_wspbus.process.asking import PING_INTERVAL
from django_wspbus.process.site import LocalSite
from django_wspbus.wspbus import Bus

from ..processes import DEADLINE
from ..projects import Project
from ..servers.conftest import GUNICORN, THREADED, address_of, ask, configure

URLS = """\
import json
import os
import traceback

from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_wspbus import bus


def call(what, args):
    try:
        return {"result": getattr(bus.site, what)(*args), "pid": os.getpid()}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


@csrf_exempt
def ask(request):
    what, *args = json.loads(request.body)
    return JsonResponse(call(what, args))


@csrf_exempt
def ask_forked(request):
    what, *args = json.loads(request.body)
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.write(writer, json.dumps(call(what, args)).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        found = json.load(answer)
    os.wait()
    return JsonResponse(found)


urlpatterns = [path("ask/", ask), path("forked/", ask_forked)]
"""

LISTENERS = """\
import os
import sys

loop = []
loop.append(loop)

bus.subscribe("shop.add", lambda one, other: one + other, role="site")
bus.subscribe("shop.add", lambda one, other: os.getpid(), role="worker")
bus.subscribe("shop.fail", lambda: 1 / 0, role="site")
bus.subscribe("shop.leave", lambda: sys.exit(3), role="site")
bus.subscribe("shop.set", lambda: {1}, role="site")
bus.subscribe("shop.loop", lambda: loop, role="site")
bus.subscribe("graceful", lambda: note("site graceful"), role="site")
bus.subscribe("start", lambda: note("site start"), role="site")
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.write("shop/urls.py", URLS)
    project.listeners(LISTENERS)
    servers = {
        "child": {"BACKEND": GUNICORN, "OPTIONS": {"threads": 4}},
        "thread": {"BACKEND": THREADED},
    }
    configure(project, servers)
    return project


def call(address: str, what: str, *args: Any, path: str = "/ask/") -> Any:
    status, body = ask(address, path, json.dumps([what, *args]).encode())
    assert status == 200
    return json.loads(body)


def test_the_site_answers_its_workers_its_own_threads_and_what_is_forked_off(shop: Project) -> None:
    with shop.serve() as site:
        child, thread = address_of(site, "child"), address_of(site, "thread")
        status = call(child, "status")
        worker = status["pid"]
        assert status["result"]["pid"] == site.pid != worker
        assert status["result"]["state"] == "STARTED"
        servers = status["result"]["servers"]
        assert {alias: server["backend"] for alias, server in servers.items()} == {
            "child": GUNICORN,
            "thread": THREADED,
        }
        assert servers["child"]["workers"] == [worker]
        assert call(thread, "status") == {"result": status["result"], "pid": site.pid}

        # Of both roles: the site process is a worker too, as there is a server in it.
        assert call(child, "publish", "shop.add", 2, 3)["result"] == [5, site.pid]
        assert call(thread, "publish", "shop.add", 2, 3)["result"] == [5, site.pid]
        assert call(child, "publish", "shop.unheard")["result"] == []
        for what in ("shop.set", "shop.loop"):
            error = call(child, "publish", what)["error"]
            assert "RuntimeError: The result of publish cannot be sent" in error
        assert call(child, "publish", "shop.fail")["error"].startswith("RuntimeError: ZeroDivisionError")
        assert call(thread, "publish", "shop.fail")["error"].startswith("ChannelFailures: ZeroDivisionError")
        assert call(child, "publish", "shop.leave")["error"] == "RuntimeError: SystemExit: 3"
        assert call(child, "ask", "nonsense")["error"].endswith(
            "ValueError: The site does not know the request 'nonsense'."
        )
        assert (
            call(thread, "ask", "nonsense")["error"]
            == "ValueError: The site does not know the request 'nonsense'."
        )

        forked = call(child, "status", path="/forked/")
        assert forked["result"] == status["result"]  # it is no worker
        assert forked["pid"] not in (site.pid, worker)
        assert "forked from the site process" in call(thread, "status", path="/forked/")["error"]

        assert "error" not in call(child, "graceful")
        assert len(shop.notes("site graceful")) == 1
        assert "error" not in call(thread, "graceful")
        assert [note.pid for note in shop.notes("site graceful")] == [site.pid] * 2

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(call, child, "publish", "shop.add", n, n) for n in range(40)]
            assert [future.result()["result"][0] for future in futures] == [2 * n for n in range(40)]
        assert "error" not in call(child, "exit")
        assert site.wait() == 0


@pytest.mark.extended
@pytest.mark.parametrize("alias", ["child", "thread"])
def test_a_request_that_restarts_or_ends_the_site_is_answered(shop: Project, alias: str) -> None:
    with shop.serve() as site:
        address = address_of(site, alias)
        assert "error" not in call(address, "restart")
        shop.expect_note("site start", 2)
        site.wait_for_line("^Quit with", count=2)
        assert "error" not in call(address, "exit")
        assert site.wait() == 0
        assert [note.pid for note in shop.notes("site start")] == [site.pid] * 2


ASKED_AFTER_THE_END = """\
import os
import threading
import time

from django.http import HttpResponse
from django.urls import path

from django_wspbus import SiteUnreachable, bus

from .journal import note


def ask(name, *args):
    try:
        bus.site.publish(*args)
    except SiteUnreachable:
        note(f"{name} {time.monotonic()}")


def leave(request):
    \"\"\"Fork a process that outlives the site, and asks it before and after its end.\"\"\"
    if not os.fork():
        os.setsid()
        thread = threading.Thread(target=ask, args=("asking", "shop.hang"))
        thread.start()
        thread.join()
        ask("later", "shop.add", 1, 2)
        os._exit(0)
    return HttpResponse()


urlpatterns = [path("leave/", leave)]
"""

HANG = """
@bus.subscribe("shop.hang", role="site")
def hang():
    note("hangs")
    bus.wait_for(lambda: False, 30)
"""


@pytest.mark.extended
def test_a_process_that_asks_a_site_which_is_killed_learns_so_at_once(project: Project) -> None:
    project.write("shop/urls.py", ASKED_AFTER_THE_END)
    project.listeners(HANG)
    configure(project, {"child": {"BACKEND": GUNICORN}})
    with project.serve() as site:
        ask(address_of(site, "child"), "/leave/")
        project.expect_note("hangs")
        killed = time.monotonic()
        site.send(signal.SIGKILL)
        site.wait()
        deadline = time.monotonic() + DEADLINE
        while len(notes := [each for each in project.events() if each.startswith(("asking", "later"))]) < 2:
            assert time.monotonic() < deadline, project.events()
            time.sleep(0.01)
    for note in notes:
        assert float(note.split()[1]) - killed < PING_INTERVAL  # it does not ask whether the site lives


# Without a site


def test_a_process_without_a_site_has_none_to_ask() -> None:
    for ask_it in (bus.site.status, bus.site.exit, bus.site.graceful, lambda: bus.site.publish("any")):
        with pytest.raises(SiteUnreachable, match="belongs to no site"):
            ask_it()


# Without processes


def test_in_the_main_thread_of_the_site_process_it_exits_at_once() -> None:
    local = Bus()
    local.start()
    site = LocalSite(local, lambda: {"state": local.state.name})
    assert site.status() == {"state": "STARTED"}
    site.exit()

    assert local.state is local.states.EXITING


def test_in_another_thread_it_has_the_one_that_blocks_exit() -> None:
    local = Bus()
    local.start()
    site = LocalSite(local, dict)
    exited_by = []
    local.subscribe("exit", lambda: exited_by.append(threading.current_thread()))
    asker = threading.Thread(target=site.exit)
    asker.start()
    local.block()
    asker.join(DEADLINE)

    assert exited_by == [threading.main_thread()]
