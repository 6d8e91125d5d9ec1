from __future__ import annotations

import logging
import subprocess
import sys
import textwrap

import pytest

from django_wspbus import Bus, ChannelFailures, SiteUnreachable
from django_wspbus.process.bus import ProcessBus
from django_wspbus.process.process_bus import log_to_python
from django_wspbus.process.site import NoSite

from ..processes import DEADLINE
from ..projects import GUNICORN, THREADED


@pytest.fixture
def script(tmp_path):
    """Run a script in a fresh interpreter, which has no Django settings; return what it prints."""

    def run(source):
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return result.stdout.split()

    return run


# One bus


def test_the_package_imports_without_django_and_the_bus_without_settings(script):
    assert script(
        """
        import os, sys
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)
        import django_wspbus
        print("django" in sys.modules, "django_wspbus.process.bus" in sys.modules)
        from django_wspbus import bus
        bus.start()
        from django.conf import settings
        print(settings.configured, bus.state.name)
        bus.exit()
        """
    ) == ["False", "False", "False", "STARTED"]


def test_many_threads_of_a_fresh_process_get_the_same_bus(script):
    assert script(
        """
        import sys
        import threading
        import django_wspbus

        sys.setswitchinterval(1e-6)
        found = set()
        barrier = threading.Barrier(50)

        def look():
            barrier.wait()
            from django_wspbus import bus
            found.add(id(bus))

        threads = [threading.Thread(target=look) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(threads), len(found), {id(django_wspbus.bus)} == found)
        """
    ) == ["50", "1", "True"]


def test_a_forked_child_has_the_same_bus_reset_in_place(script):
    lines = script(
        """
        import os
        from django_wspbus import bus

        bus.subscribe("start", lambda: None, role="any")
        bus.roles = {"site", "worker"}
        before = bus
        bus.start()
        child = os.fork()
        if child == 0:
            from django_wspbus import bus
            same = bus is before
            count = len(bus.listeners["start"]) + len(bus.listeners["log"])
            print(same, bus.state.name, sorted(bus.roles), count, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(bus.state.name, sorted(bus.roles))
        bus.exit()
        """
    )
    assert lines == ["True", "STOPPED", "[]", "2", "STARTED", "['site',", "'worker']"]


def test_what_the_package_offers_is_listed_and_anything_else_is_an_attribute_error():
    import django_wspbus

    assert set(django_wspbus.__all__) <= set(dir(django_wspbus))
    for name in django_wspbus.__all__:
        assert getattr(django_wspbus, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'buss'"):
        django_wspbus.buss  # noqa: B018


def test_a_new_bus_plays_no_role_and_belongs_to_no_site():
    bus = ProcessBus()
    assert bus.roles == frozenset()
    for ask in (bus.site.status, bus.site.graceful, bus.site.restart, bus.site.exit):
        with pytest.raises(SiteUnreachable, match=r"needs `manage\.py runbus`"):
            ask()
    with pytest.raises(SiteUnreachable):
        bus.site.publish("channel")


# The log


def test_what_the_bus_logs_goes_to_python_logging_with_its_level(caplog):
    bus = ProcessBus()
    with caplog.at_level(1, "django_wspbus"):
        bus.log("all is well")
        bus.log("100 %s of it", level=40)
        log_to_python("by itself")
    assert caplog.record_tuples == [
        ("django_wspbus", logging.INFO, "all is well"),
        ("django_wspbus", logging.ERROR, "100 %s of it"),
        ("django_wspbus", logging.INFO, "by itself"),
    ]


def test_a_bare_bus_does_not_log_to_python(caplog):
    with caplog.at_level(1):
        Bus().log("without a listener")
    assert caplog.records == []


# Roles


LISTENERS_OF_EVERY_ROLE = """
from functools import partial

for role in (None, "site", "worker", "any"):
    for channel in ("start", "stop"):
        bus.subscribe(channel, partial(note, f"{role} {channel}"), role=role)

every(0.01, role="site")(partial(note, "job of the site"))
every(0.01)(partial(note, "job of the worker"))
"""


def test_no_listener_runs_in_any_other_command(project):
    project.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}})
    project.listeners(LISTENERS_OF_EVERY_ROLE)
    commands = ["migrate", "check --deploy", "runbus --check", "runbus --print-settings"]
    source = f"from django.core.management import call_command; {commands = }"
    source += "; [call_command(*command.split()) for command in commands]; print('all')"
    result = project.run("shell", "-v0", "-c", source)
    assert result.stdout.endswith("\nall\n"), result.stderr
    assert project.notes() == []


def test_a_command_may_run_the_bus_for_itself(project):
    project.listeners(LISTENERS_OF_EVERY_ROLE)
    project.write("shop/management/commands/work.py", WORK)
    result = project.run("work")
    assert result.stdout.split() == ["STOPPED", "STARTED", "STOPPED"], result.stderr
    assert [event for event in project.events() if event != "job of the worker"] == [
        *("None start", "worker start", "any start", "None stop", "worker stop", "any stop")
    ]
    assert project.notes("job of the worker")


WORK = """
import time

from django.core.management.base import BaseCommand

from django_wspbus import bus
from shop.journal import PATH


class Command(BaseCommand):
    def handle(self, **options):
        self.stdout.write(bus.state.name)
        with bus.running("worker"):
            self.stdout.write(bus.state.name)
            while "job" not in PATH.read_text():
                time.sleep(0.01)
        self.stdout.write(bus.state.name)
"""


def test_the_roles_of_the_processes_of_a_site(project):
    project.serves({**GUNICORN, "OPTIONS": {"workers": 2}})
    project.listeners(LISTENERS_OF_EVERY_ROLE)
    with project.serve() as site:
        site.wait_until_started()
        project.expect_note("job of the site")
        project.expect_note("job of the worker")
        assert site.stop() == 0
        site_pid = site.pid
    for event in ("site start", "site stop", "job of the site"):
        assert {note.pid for note in project.notes(event)} == {site_pid}
    for event in ("None start", "worker start", "None stop", "worker stop"):
        pids = [note.pid for note in project.notes(event)]
        assert len(pids) == len(set(pids)) == 2
        assert site_pid not in pids
    assert {note.pid for note in project.notes("job of the worker")} <= set(pids)
    for event in ("any start", "any stop"):  # and none in gunicorn's master
        assert sorted(note.pid for note in project.notes(event)) == sorted([site_pid, *pids])


def test_a_site_of_one_process_plays_both_roles(project):
    project.serves(THREADED)
    project.listeners(LISTENERS_OF_EVERY_ROLE)
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == 0
    events = [note.event for note in project.notes() if "job" not in note.event]
    assert events == [
        f"{role} {channel}" for channel in ("start", "stop") for role in (None, "site", "worker", "any")
    ]
    assert {note.pid for note in project.notes()} == {site.pid}


# Reports


class Reporting(NoSite):
    """A site that reports failures in the place of the process, if it is to."""

    def __init__(self, reports):
        self.reports = reports
        self.reported = []

    def report_failure(self, channel, error):
        self.reported.append((channel, error))
        return self.reports

    def report_failed_start(self, error):
        self.reported.append(error)
        return self.reports

    def report_hanging(self, text):
        self.reported.append(text)
        return self.reports


@pytest.mark.parametrize("reports", [True, False])
def test_what_the_site_reports_the_process_does_not(reports, caplog, capfd):
    bus = ProcessBus()
    bus.site = site = Reporting(reports)
    bus.roles = {"worker"}
    bus.subscribe("start", lambda: {}["the cause"])
    with caplog.at_level(logging.INFO), pytest.raises(ChannelFailures) as caught:
        bus.start()
    bus.report_hanging("A listener hangs.")
    (error,) = caught.value.get_instances()
    assert site.reported == [("start", error), caught.value, "A listener hangs."]
    assert ("the cause" in caplog.text) is not reports
    assert ("A listener hangs." in capfd.readouterr().err) is not reports
