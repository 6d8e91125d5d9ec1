"""The fixture ``bus``, as the tests of a project use it: pytest runs in projects of its own here."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from .processes import DEADLINE, run
from .projects import Project

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}


class Outcome:
    """The results of the tests in a file, in order: "passed", "failed" or "error"; and the whole output."""

    def __init__(self, output, file):
        self.output = output
        self.of = {}
        for result, test in re.findall(
            rf"^(PASSED|FAILED|ERROR) test_{file}\.py::(\w+)", output, re.MULTILINE
        ):
            self.of.setdefault(test, []).append(result.lower())

    def errors_of(self, test):
        """Return the errors before and after a test, as pytest shows them."""
        pattern = rf"^_+ ERROR at \w+ of {test} _+\n(.*?)(?=^[_=]{{5}})"
        return "".join(re.findall(pattern, self.output, re.MULTILINE | re.DOTALL))


def run_tests(project, sources):
    """Run the tests of a project, a source for each file; return the outcome of each."""
    for name, source in sources.items():
        project.write(f"test_{name}.py", f"import threading\nimport pytest\n{source}")
    project.write("pytest.ini", "[pytest]\n")  # none of a folder above
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--rootdir", "."]
    result = run(command, env=os.environ | project.environment, cwd=project.root)
    sys.stdout.write(result.stdout + result.stderr)
    return {name: Outcome(result.stdout, name) for name in sources}


SOURCES = {}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """One run of all `SOURCES`, as most tests need no other project."""
    project = Project(tmp_path_factory.mktemp("tested"))
    project.configure(DATABASES=DATABASES, STATIC_URL="/static/")
    project.write("shop/listeners.py", (project.root / "shop/listeners.py").read_text() + MORE_LISTENERS)
    project.write("shop/urls.py", URLS)
    return run_tests(project, SOURCES)


MORE_LISTENERS = """
from django_wspbus import every

every(3600)(print)
every(3600, role="site")(print)

failing = set()
executors = []


@bus.subscribe("async")
def use_a_library():
    import asyncio

    from asgiref.sync import async_to_sync, sync_to_async

    async_to_sync(sync_to_async(print))()


@bus.subscribe("daemon")
def start_daemon():
    import threading

    threading.Thread(target=threading.Event().wait, name="daemon", daemon=True).start()


@bus.subscribe("nested")
def start_nested():
    import threading

    outer = threading.Thread(
        target=lambda: threading.Thread(target=threading.Event().wait, name="nested", daemon=True).start()
    )
    outer.start()
    outer.join()


@bus.subscribe("start", role="any")
@bus.subscribe("stop", role="any")
def fail():
    if bus.state.name in failing:
        raise RuntimeError("on purpose")
"""

URLS = """
from django.http import HttpResponse
from django.urls import path

from django_wspbus import bus

bus.subscribe("viewed", lambda order: order)


def view(request):
    body = str(bus.publish("viewed", 7))
    return HttpResponse(body, headers={"Content-Length": len(body)})


urlpatterns = [path("", view)]
"""

SOURCES["events"] = """
from django_wspbus import bus as the_bus
from shop.journal import PATH, note

def test_one(bus):
    assert bus is the_bus
    assert bus.state is bus.states.STARTED
    assert bus.roles == {"site", "worker"}
    note("one")

def test_two(bus):
    note("two")

def test_without():
    assert the_bus.state is the_bus.states.STOPPED
    assert not the_bus.roles
    events = [line.partition(" ")[2] for line in PATH.read_text().splitlines()]
    start, stop = ["site start", "worker start"], ["site stop", "worker stop"]
    assert events[-10:] == [*start, "one", *stop, *start, "two", *stop]
"""


def test_every_listener_of_the_project_has_run_and_stops_after_each_test(outcomes):
    assert outcomes["events"].of == {
        "test_one": ["passed"],
        "test_two": ["passed"],
        "test_without": ["passed"],
    }


SOURCES["changes"] = """
@pytest.mark.parametrize("n", range(2))
def test_subscribes_and_unsubscribes(bus, n):
    assert bus.publish("paid", 7) == []
    listener = bus.subscribe("paid", lambda order: order)
    assert bus.publish("paid", 7) == [7]
    bus.unsubscribe("paid", listener)
    for listener in list(bus.listeners["start"]):
        bus.unsubscribe("start", listener)

@pytest.mark.parametrize("n", range(2))
def test_exits(bus, n):
    assert len(bus.listeners["start"]) == 5
    bus.exit()

@pytest.mark.parametrize("n", range(2))
def test_restarts(bus, n):
    bus.restart()
    assert bus.execv

def test_starts_after_an_exit(bus):
    assert bus.state is bus.states.STARTED
    assert not bus.execv
"""


def test_no_test_sees_what_another_has_done_to_the_bus(outcomes):
    assert outcomes["changes"].of == {
        "test_subscribes_and_unsubscribes": ["passed"] * 2,
        "test_exits": ["passed"] * 2,
        "test_restarts": ["passed"] * 2,
        "test_starts_after_an_exit": ["passed"],
    }


SOURCES["leftovers"] = """
forever = threading.Event()

def left_listener():
    pass

def test_leaves_a_subscription(bus):
    bus.subscribe("paid", left_listener)
    bus.subscribe("start", left_listener)

def test_sees_no_subscription(bus):
    assert "paid" not in bus.listeners
    assert left_listener not in bus.listeners["start"]

def test_leaves_a_thread(monkeypatch, bus):
    monkeypatch.setattr("django_wspbus.pytest_plugin.THREAD_TIMEOUT", 0.1)
    threading.Thread(target=forever.wait, name="The one that stays").start()

def test_is_not_to_blame_for_the_thread_of_another(bus):
    pass

def test_lets_the_thread_go():
    forever.set()
"""


def test_what_a_test_leaves_behind_is_an_error_of_that_test_alone(outcomes):
    outcome = outcomes["leftovers"]
    assert outcome.of == {
        "test_leaves_a_subscription": ["passed", "error"],
        "test_sees_no_subscription": ["passed"],
        "test_leaves_a_thread": ["passed", "error"],
        "test_is_not_to_blame_for_the_thread_of_another": ["passed"],
        "test_lets_the_thread_go": ["passed"],
    }
    subscription = outcome.errors_of("test_leaves_a_subscription")
    for channel in ("paid", "start"):
        assert re.search(
            rf"^- the subscription of <function left_listener .*> to '{channel}'", subscription, re.MULTILINE
        )
    thread = outcome.errors_of("test_leaves_a_thread")
    assert "- the thread 'The one that stays': end it in a stop listener" in thread
    for shown in (subscription, thread):
        assert "The test left behind:" in shown
        assert "Traceback" not in shown
        assert "pytest_plugin.py" not in shown.replace("django_wspbus.pytest_plugin", "")


SOURCES["threads"] = """
def test_one(bus):
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("every ")]) == 2
    timer = threading.Timer(0.2, lambda: None)
    timer.start()
"""


def test_a_thread_that_ends_with_the_bus_is_not_left(outcomes):
    assert outcomes["threads"].of == {"test_one": ["passed"]}


SOURCES["others"] = """
import asyncio
import http.client
import time
from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import async_to_sync, sync_to_async

from shop.listeners import executors

@pytest.fixture
def connection(live_server):
    connection = http.client.HTTPConnection(live_server.url.removeprefix("http://"))
    yield connection
    connection.close()

@pytest.fixture
def helper():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    yield
    stop.set()
    thread.join()

def ask(connection):
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.read() == b"[7]"
    assert not response.will_close

@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr("django_wspbus.pytest_plugin.THREAD_TIMEOUT", 0.1)

def test_live_server_before(connection, bus):
    ask(connection)

def test_live_server_after(bus, connection):
    ask(connection)

def test_helper(bus, helper):
    pass

def test_kept_by_a_library(bus):
    async_to_sync(sync_to_async(print))()
    loop = asyncio.new_event_loop()
    executors.append(loop)
    loop.run_until_complete(asyncio.wait_for(loop.run_in_executor(None, print), 5))

def test_kept_by_a_library_that_a_listener_uses(bus):
    bus.publish("async")

def test_close():
    for loop in executors:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

def test_executor(bus):
    executor = ThreadPoolExecutor(thread_name_prefix="own")
    executors.append(executor)
    executor.submit(print)

def test_daemon_of_a_listener(bus):
    bus.publish("daemon")

def test_thread_of_a_thread(bus):
    thread = threading.Thread(target=lambda: bus.publish("nested"))
    thread.start()
    thread.join()
"""


def test_threads_of_other_fixtures_and_of_libraries_are_not_left_by_the_test(outcomes):
    outcome = outcomes["others"]
    ours = {
        "test_executor": "own_0",
        "test_daemon_of_a_listener": "daemon",
        "test_thread_of_a_thread": "nested",
    }
    assert len(outcome.of) == 9
    for test, results in outcome.of.items():
        assert results == (["passed", "error"] if test in ours else ["passed"]), test
    for test, thread in ours.items():
        assert f"- the thread '{thread}': end it in a stop listener" in outcome.errors_of(test)


SOURCES["failures"] = """
from shop.listeners import failing

@pytest.fixture(params=["STARTING", "STOPPING"])
def fail(request):
    failing.add(request.param)
    yield
    failing.clear()

def test_one(fail, bus):
    pass

def test_without(fail):
    pass
"""


def test_a_listener_that_fails_is_an_error_of_each_test_that_runs_it(outcomes):
    outcome = outcomes["failures"]
    assert outcome.of == {"test_one": ["passed", "error", "error"], "test_without": ["passed"] * 2}
    for state in ("STARTING", "STOPPING"):
        assert "RuntimeError: on purpose" in outcome.errors_of(rf"test_one\[{state}\]")


SOURCES["site"] = """
import os
from django_wspbus import SiteUnreachable
from django_wspbus import bus as the_bus

def test_one(bus):
    calls = []
    graceful = bus.subscribe("graceful", lambda: calls.append("graceful"))
    paid = bus.subscribe("paid", lambda order: calls.append(order) or order)
    assert bus.site.publish("paid", 7) == [7]
    calls.clear()
    bus.site.graceful()
    assert calls == ["graceful"]
    assert bus.site.status() == {"pid": os.getpid(), "state": "STARTED", "servers": {}}
    bus.broadcast("paid", (7, 8))
    assert calls[1:] == [[7, 8]]
    (reply,) = bus.ask("paid", 9)
    assert (reply.pid, reply.result, reply.roles) == (os.getpid(), 9, ["site", "worker"])
    bus.unsubscribe("graceful", graceful)
    bus.unsubscribe("paid", paid)
    bus.site.exit()
    assert bus.state is bus.states.EXITING

def test_without():
    with pytest.raises(SiteUnreachable):
        the_bus.site.status()
"""


def test_the_site_is_this_process(outcomes):
    assert outcomes["site"].of == {"test_one": ["passed"], "test_without": ["passed"]}


SOURCES["leader"] = """
from django.db import connection

from django_wspbus import NotLeader


def test_leads(bus, db):
    token = bus.leader.token
    with bus.leader.fence() as fenced:
        assert (fenced, connection.in_atomic_block) == (token, True)
    assert bus.leader.token == token


def test_without():
    from django_wspbus import bus

    with pytest.raises(NotLeader):
        bus.leader.token
"""


def test_a_job_that_needs_a_token_can_be_called(outcomes):
    assert outcomes["leader"].of == {"test_leads": ["passed"], "test_without": ["passed"]}


SOURCES["views"] = """
@pytest.mark.parametrize("n", range(2))
def test_one(bus, client, n):
    assert client.get("/").content == b"[7]"
"""


def test_a_subscription_of_a_view_at_its_import_is_not_taken_for_the_tests(outcomes):
    assert outcomes["views"].of == {"test_one": ["passed", "passed"]}


def test_listeners_may_use_the_database_from_the_start_to_the_stop(project):
    project.configure(
        DATABASES=DATABASES,
        INSTALLED_APPS=["django.contrib.contenttypes", "django_wspbus", "shop"],
    )
    project.listeners(
        """
from django.contrib.contenttypes.models import ContentType


@bus.subscribe("start")
@bus.subscribe("stop")
def note_rows():
    note(f"{bus.state.name} {ContentType.objects.filter(app_label='made').count()}")
    ContentType.objects.create(app_label="made", model=bus.state.name)
"""
    )
    source = """
from django.contrib.contenttypes.models import ContentType

def made():
    return ContentType.objects.filter(app_label="made").count()

def test_db(bus, db):
    assert made() == 1

def test_transactional_db(bus, transactional_db):
    assert made() == 1

@pytest.mark.django_db
def test_mark(bus):
    assert made() == 1

def test_without_the_database(bus):
    pass
"""
    outcome = run_tests(project, {"shop": source})["shop"]
    passed = ["passed"]
    assert outcome.of == {
        "test_db": passed,
        "test_transactional_db": passed,
        "test_mark": passed,
        "test_without_the_database": ["error"],
    }
    assert project.events() == ["STARTING 0", "STOPPING 1"] * 3
    assert "Database access not allowed" in outcome.output


@pytest.mark.extended
def test_it_works_where_there_is_no_django_project(tmp_path):
    (tmp_path / "test_bare.py").write_text("def test_one(bus):\n    assert bus.state.name == 'STARTED'\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "no:django", "-p", "no:cacheprovider", "--rootdir", "."]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_bare.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 0, result.stdout
