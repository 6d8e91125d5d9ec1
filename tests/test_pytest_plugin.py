"""The fixture ``bus``, as the tests of a project use it: each run of pytest here is one of a project."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from .processes import DEADLINE

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}


class Outcome:
    """What a run of pytest said of each test: "passed", "failed" or "error"."""

    def __init__(self, output):
        self.output = output
        self.of = {}
        for result, test in re.findall(r"^(PASSED|FAILED|ERROR) test_shop\.py::(\w+)", output, re.MULTILINE):
            self.of.setdefault(test, []).append(result.lower())


@pytest.fixture
def run(project):
    """Run tests in a project; return their outcome."""

    def run(source):
        project.write("test_shop.py", "import threading\nimport pytest\n" + source)
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "-rA",
                "--rootdir",
                ".",
                "test_shop.py",
            ],
            cwd=project.root,
            env=os.environ | project.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        sys.stdout.write(result.stdout + result.stderr)
        return Outcome(result.stdout)

    return run


def test_every_listener_of_the_project_has_run_and_stops_after_each_test(run, project):
    outcome = run(
        """
from django_wspbus import bus as the_bus
from shop.journal import note

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
    note("without")
"""
    )
    assert outcome.of == {"test_one": ["passed"], "test_two": ["passed"], "test_without": ["passed"]}
    start, stop = ["site start", "worker start"], ["site stop", "worker stop"]
    assert project.events() == [*start, "one", *stop, *start, "two", *stop, "without"]


def test_no_test_sees_what_another_has_done_to_the_bus(run):
    outcome = run(
        """
import pytest

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
    assert len(bus.listeners["start"]) == 2
    bus.exit()

@pytest.mark.parametrize("n", range(2))
def test_restarts(bus, n):
    bus.restart()
    assert bus.execv

def test_starts_after_an_exit(bus):
    assert bus.state is bus.states.STARTED
    assert not bus.execv
"""
    )
    assert {test: set(results) for test, results in outcome.of.items()} == {
        "test_subscribes_and_unsubscribes": {"passed"},
        "test_exits": {"passed"},
        "test_restarts": {"passed"},
        "test_starts_after_an_exit": {"passed"},
    }


def test_what_is_left_behind_is_an_error_and_nobody_elses(run):
    outcome = run(
        """
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
    monkeypatch.setattr("django_wspbus.pytest_plugin.GRACE", 0.1)
    threading.Thread(target=forever.wait, name="The one that stays").start()

def test_is_not_to_blame_for_the_thread_of_another(bus):
    pass

def test_lets_the_thread_go():
    forever.set()
"""
    )
    assert outcome.of == {
        "test_leaves_a_subscription": ["passed", "error"],
        "test_sees_no_subscription": ["passed"],
        "test_leaves_a_thread": ["passed", "error"],
        "test_is_not_to_blame_for_the_thread_of_another": ["passed"],
        "test_lets_the_thread_go": ["passed"],
    }
    assert "The test left behind:" in outcome.output
    assert re.search(
        r"^- the subscription of <function left_listener .*> to 'paid'", outcome.output, re.MULTILINE
    )
    assert re.search(
        r"^- the subscription of <function left_listener .*> to 'start'", outcome.output, re.MULTILINE
    )
    assert "- the thread 'The one that stays': end it in a stop listener" in outcome.output
    assert "Traceback" not in outcome.output
    assert "pytest_plugin.py" not in outcome.output.replace("django_wspbus.pytest_plugin", "")


def test_a_thread_that_ends_with_the_bus_is_not_left(run, project):
    project.listeners("every(3600)(print)\nevery(3600, role='site')(print)\n")
    outcome = run(
        """
def test_one(bus):
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("every ")]) == 2
    timer = threading.Timer(0.2, lambda: None)
    timer.start()
"""
    )
    assert outcome.of == {"test_one": ["passed"]}


@pytest.mark.parametrize("channel", ["start", "stop"])
def test_a_listener_that_fails_is_an_error_of_each_test_that_runs_it(run, project, channel):
    project.listeners(f'@bus.subscribe("{channel}")\ndef fails():\n    raise RuntimeError("on purpose")\n')
    outcome = run(
        """
def test_one(bus):
    pass

def test_two(bus):
    pass

def test_without():
    pass
"""
    )
    expected = ["error"] if channel == "start" else ["passed", "error"]
    assert outcome.of == {"test_one": expected, "test_two": expected, "test_without": ["passed"]}
    assert "RuntimeError: on purpose" in outcome.output


def test_listeners_may_use_the_database_from_the_start_to_the_stop(run, project):
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
    outcome = run(
        """
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
    )
    passed = ["passed"]
    assert outcome.of == {
        "test_db": passed,
        "test_transactional_db": passed,
        "test_mark": passed,
        "test_without_the_database": ["error"],
    }
    assert project.events() == ["STARTING 0", "STOPPING 1"] * 3
    assert "Database access not allowed" in outcome.output


def test_the_site_is_this_process(run):
    outcome = run(
        """
import os
from django_wspbus import SiteUnreachable
from django_wspbus import bus as the_bus

def test_one(bus):
    told = []
    graceful = bus.subscribe("graceful", lambda: told.append("graceful"))
    paid = bus.subscribe("paid", lambda order: order)
    assert bus.site.publish("paid", 7) == [7]
    bus.site.graceful()
    assert told == ["graceful"]
    assert bus.site.status() == {"pid": os.getpid(), "state": "STARTED", "servers": {}}
    bus.unsubscribe("graceful", graceful)
    bus.unsubscribe("paid", paid)
    bus.site.exit()
    assert bus.state is bus.states.EXITING

def test_without():
    with pytest.raises(SiteUnreachable):
        the_bus.site.status()
"""
    )
    assert outcome.of == {"test_one": ["passed"], "test_without": ["passed"]}


def test_what_views_subscribe_at_import_is_not_taken_for_the_tests(run, project):
    project.write(
        "shop/urls.py",
        """
from django.http import HttpResponse
from django.urls import path

from django_wspbus import bus

bus.subscribe("paid", lambda order: order)
urlpatterns = [path("", lambda request: HttpResponse(str(bus.publish("paid", 7))))]
""",
    )
    outcome = run(
        """
@pytest.mark.parametrize("n", range(2))
def test_one(bus, client, n):
    assert client.get("/").content == b"[7]"
"""
    )
    assert outcome.of == {"test_one": ["passed", "passed"]}


def test_it_works_where_there_is_no_django_project(tmp_path):
    (tmp_path / "test_bare.py").write_text("def test_one(bus):\n    assert bus.state.name == 'STARTED'\n")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:django",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            ".",
            "test_bare.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 0, result.stdout
