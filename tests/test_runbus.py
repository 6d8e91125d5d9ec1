"""``manage.py runbus`` as a user runs it: what it says, and what its options do."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from .processes import DEADLINE, fetch, fetch_json
from .projects import GUNICORN, SLOW_START, THREADED, reason_of


def test_the_banner_tells_versions_settings_each_server_and_how_to_quit(project):
    project.configure(
        WSPBUS={"SERVERS": {"public": GUNICORN, "in": {**THREADED, "BIND": ["127.0.0.1:0"] * 2}}}
    )
    with project.serve() as site:
        urls = site.wait_until_started()
        assert [fetch(url).split()[1] for url in urls.values()] == ["STARTED", "STARTED"]
        assert site.stop(signal.SIGINT) == 0
    first = site.lines.index(next(line for line in site.lines if line.startswith("django-wspbus ")))
    versions, public, intern, quit_with = site.lines[first : first + 4]
    assert " Django " in versions
    assert " Python " in versions
    assert versions.endswith("settings 'settings'")
    assert public.startswith(f"  public  {urls['public']}/  (gunicorn ")
    assert intern.startswith(f"  in      {urls['in']}/ http://127.0.0.1:")
    assert intern.endswith(", threaded)")
    assert quit_with == "Quit with CONTROL-C."


@pytest.mark.parametrize(
    ("verbosity", "banner", "log"),
    [("0", False, False), ("1", True, False), ("2", True, True), ("3", True, True)],
)
def test_verbosity_shows_the_banner_and_the_log_of_the_bus(project, verbosity, banner, log):
    project.serves(THREADED)
    project.listeners("bus.subscribe('main', lambda: note('main'))\n")
    with project.serve("--verbosity", verbosity) as site:
        project.expect_note("main")
        assert site.stop() == 0
    assert ("Quit with CONTROL-C." in site.output) is banner
    for line in ("Bus STARTED", "Caught signal SIGTERM", "Bus EXITED"):
        assert (line in site.output) is log
    if verbosity == "0":
        assert site.output == ""


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_each_line_of_the_log_is_shown_once_whatever_the_project_logs(project, level):
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    project.configure(
        WSPBUS={"SERVERS": {"default": THREADED}},
        WSGI_APPLICATION="shop.wsgi.application",  # which sets up Django, and its logging, again
        LOGGING={
            "version": 1,
            "handlers": {"console": handler},
            "loggers": {"django_wspbus": {"handlers": ["console"], "level": level}},
        },
    )
    with project.serve("-v", "2") as site:
        site.wait_until_started()
        assert site.stop() == 0
    for line in ("Bus STARTING", "Bus STARTED", "Bus EXITED"):
        assert site.output.count(line) == 1


def test_server_runs_one_of_several_as_the_options_say(project):
    project.configure(WSPBUS={"SERVERS": {"one": THREADED, "two": GUNICORN}})
    with project.serve("--server", "two", "127.0.0.1:0", "--workers", "2", "--threads", "3") as site:
        assert list(site.wait_until_started()) == ["two"]
        assert site.stop() == 0
    assert len(project.notes("worker start")) == 2
    assert len(project.notes("site start")) == 1


def test_a_site_that_is_daemonized_leaves_the_shell_and_serves_on(project):
    project.serves(THREADED, DAEMONIZE={"STDOUT": "out.log"})
    with project.serve("--daemonize", "--pidfile", "site.pid") as site:
        assert site.wait() == 0
        daemon = psutil.Process(int((project.root / "site.pid").read_text()))
        assert daemon.pid != site.pid
        assert "Quit with" in (project.root / "out.log").read_text()
        daemon.terminate()
        psutil.wait_procs([daemon], timeout=DEADLINE)
        assert not daemon.is_running()
    assert not (project.root / "site.pid").exists()
    assert [note.pid for note in project.notes("site exit")] == [daemon.pid]


def test_a_daemon_that_does_not_start_tells_the_shell_why(project, taken_port):
    project.serves({**THREADED, "BIND": f"127.0.0.1:{taken_port}"})
    result = project.run("runbus", "--daemonize")
    assert result.returncode == 1
    assert "cannot listen on 127.0.0.1" in reason_of(result)


def test_a_daemon_that_is_told_to_exit_while_it_starts_tells_the_shell(project):
    project.serves(THREADED)
    project.listeners(SLOW_START.format(role="site"))
    with project.serve("--daemonize") as site:
        (note,) = project.expect_note("slow start")
        os.kill(note.pid, signal.SIGTERM)
        assert site.wait() == 1
    assert site.lines == ["CommandError: The site was told to exit while it was starting."]


def test_the_umask_is_that_of_what_listeners_write(project):
    project.serves(THREADED)
    project.listeners("bus.subscribe('start', lambda: note('start'), 60)\n")
    with project.serve("--umask", "077") as site:
        site.wait_until_started()
        assert site.stop() == 0
    assert (project.root / "journal.txt").stat().st_mode & 0o777 == 0o700  # of 0o777


def test_plugins_of_the_project_are_made_in_the_site_process_with_their_options(project):
    project.write(
        "shop/plugins.py",
        """
from django_wspbus import Plugin

from .journal import note


class Noting(Plugin):
    def __init__(self, bus, word):
        super().__init__(bus)
        self.word = word

    def start(self):
        note(f"{self.word} start")


class OfWorkers(Noting):
    role = "worker"


class OfAnotherBus:
    def __init__(self, bus):
        self.bus = bus

    def subscribe(self):
        self.bus.subscribe("start", self.start, role="site")

    def unsubscribe(self):
        self.bus.unsubscribe("start", self.start)

    def start(self):
        note("another start")
""",
    )
    project.listeners("")
    plugins = [
        {"BACKEND": "shop.plugins.Noting", "OPTIONS": {"word": "site"}},
        {"BACKEND": "shop.plugins.OfWorkers", "OPTIONS": {"word": "worker"}},
        {"BACKEND": "shop.plugins.OfAnotherBus"},
    ]
    project.serves(GUNICORN, PLUGINS=plugins)
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == 0
    assert [(note.pid, note.event) for note in project.notes()] == [
        (site.pid, "site start"),
        (site.pid, "another start"),
    ]


def test_the_status_of_the_site_tells_its_state_and_each_server(project):
    project.configure(WSPBUS={"SERVERS": {"public": GUNICORN, "in": THREADED}})
    project.write(
        "shop/urls.py",
        """
from django.http import JsonResponse
from django.urls import path

from django_wspbus import bus

urlpatterns = [path("", lambda request: JsonResponse(bus.site.status()))]
""",
    )
    with project.serve() as site:
        urls = site.wait_until_started()
        public, intern = fetch_json(urls["public"]), fetch_json(urls["in"])
        assert site.stop() == 0
    assert public == intern
    assert (public["pid"], public["state"]) == (site.pid, "STARTED")
    assert [server["backend"] for server in public["servers"].values()] == [
        *(GUNICORN["BACKEND"], THREADED["BACKEND"])
    ]
