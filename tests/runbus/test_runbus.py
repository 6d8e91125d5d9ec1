"""``manage.py runbus`` as a user runs it: what it says, and what its options do."""

from __future__ import annotations

import os
import signal

import pytest

from ..processes import fetch
from ..projects import GUNICORN, SLOW_START, THREADED


def test_the_banner_shows_versions_settings_each_server_and_how_to_quit(project):
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


@pytest.mark.extended
@pytest.mark.parametrize(
    ("verbosity", "banner", "log"), [("0", False, False), ("2", True, True), ("3", True, True)]
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


@pytest.mark.parametrize("level", ["INFO", pytest.param("WARNING", marks=pytest.mark.extended)])
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


def test_an_exit_during_the_start_of_a_daemon_is_an_error_of_the_command(project):
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
