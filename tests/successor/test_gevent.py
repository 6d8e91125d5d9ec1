"""gunicorn's gevent workers: patched before anything of the project is imported."""

from __future__ import annotations

import signal
import time

import pytest

from tests.processes import fetch
from tests.projects import Project
from tests.servers.clients import ask
from tests.servers.conftest import GUNICORN, address_of, configure
from tests.servers.load import await_that, await_value

from .test_deploy import renew

pytestmark = pytest.mark.extended

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
URLS = """\
import socket
import sys

from django.db import connection
from django.http import HttpResponse
from django.urls import path
from gevent import monkey

from patched import EARLY


def answer(request):
    with connection.cursor() as cursor:
        cursor.execute("select 42")
        (found,) = cursor.fetchone()
    return HttpResponse(f"{found} {EARLY} {monkey.is_module_patched('socket')}")


urlpatterns = [path("", answer)]
"""
# What a module of the project sees that manage.py imports before Django.
PATCHED = "from gevent import monkey\n\nEARLY = monkey.is_module_patched('threading')\n"
LISTENERS = """\
from django.db import connection


@every(1)
def job():
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    note("job")


bus.subscribe("stop", lambda: note("stopped"))
"""


@pytest.fixture
def project(shop: Project) -> Project:
    shop.write("patched.py", PATCHED)
    shop.write("manage.py", "import patched  # noqa: F401\n" + (shop.root / "manage.py").read_text())
    shop.write("shop/urls.py", URLS)
    shop.listeners(LISTENERS)
    return shop


def set_up(project: Project, *, debug: bool = False, **options: object) -> None:
    server = {"BACKEND": GUNICORN, "BIND": "127.0.0.1:0", "OPTIONS": {"workers": 1, **options}}
    wspbus = {"SERVERS": {"default": server}, "AUTORELOAD": {"SPARE": False} if debug else None}
    project.configure(WSPBUS=wspbus, DATABASES=DATABASES, DEBUG=debug)


@pytest.mark.parametrize(
    ("options", "signals"),
    [
        ({"worker_class": "gevent_pywsgi", "preload_app": False}, [signal.SIGUSR1, signal.SIGUSR2]),
        ({"config": "gunicorn.conf.py"}, [signal.SIGUSR2]),
        ({"worker_class": "workers.Own"}, [signal.SIGUSR1]),
    ],
    ids=["by name", "in gunicorn's file", "a class of the project"],
)
def test_a_database_is_used_and_an_exit_waits_for_no_job(
    project: Project, options: dict[str, object], signals: list[int]
) -> None:
    project.write("gunicorn.conf.py", "worker_class = 'gevent'\n")
    project.write(
        "workers.py",
        "from gunicorn.workers.ggevent import GeventWorker\n\n\nclass Own(GeventWorker):\n    pass\n",
    )
    set_up(project, **options)
    assert project.run("runbus", "--check").returncode == 0
    with project.serve("-v2") as site:
        address = address_of(site)
        for number in signals:
            assert [ask(address) for _ in range(3)] == [(200, "42 True True")] * 3
            renew(site, number, 2)
        assert ask(address) == (200, "42 True True")
        project.expect_note("job")
        began = time.monotonic()
        assert site.stop() == 0
        assert time.monotonic() - began < 12  # of 25, on a busy machine
        assert site.members() == []
    assert "Error" not in site.output
    assert project.events().count("stopped") == 1 + len(signals)


@pytest.mark.usefixtures("new_interpreters")
def test_a_change_of_the_worker_class_takes_effect_with_a_reload(project: Project) -> None:
    set_up(project, worker_class="gthread")
    with project.serve("-v2") as site:
        address = address_of(site)
        assert ask(address)[1] == "42 False False"
        for count, (name, answer) in enumerate(
            (("gevent", "42 True True"), ("gthread", "42 False False")), 2
        ):
            set_up(project, worker_class=name)
            renew(site, signal.SIGUSR1, count)
            await_value(lambda: ask(address)[1], answer)
        assert site.stop() == 0


def test_a_save_is_noticed_under_debug(project: Project) -> None:
    set_up(project, debug=True, worker_class="gevent")
    with project.serve() as site:
        url = site.wait_until_started()["default"]
        assert fetch(url) == "42 True True"
        site.wait_for_line("^Watching for file changes")
        project.write("shop/urls.py", URLS.replace("{found}", "new"))
        await_value(lambda: fetch_while_it_restarts(url), "new True True")
        assert site.stop() == 0
        assert site.members() == []


def fetch_while_it_restarts(url: str) -> str:
    """Return the body of a page, or the error: under DEBUG, a restart may reset a connection."""
    try:
        return fetch(url)
    except OSError as error:
        return str(error)


def test_workers_end_with_a_site_that_is_killed(project: Project) -> None:
    set_up(project, worker_class="gevent")
    with project.serve() as site:
        address_of(site)
        site.send(signal.SIGKILL)
        await_that(lambda: not site.members(), site.members)
        project.expect_note("stopped")


def test_a_missing_gevent_is_a_finding_and_no_traceback(project: Project) -> None:
    project.write(
        "manage.py", (project.root / "manage.py").read_text().replace("import patched  # noqa: F401\n", "")
    )
    project.write("shop/urls.py", "urlpatterns = []\n")
    project.write("gevent.py", "raise ImportError('there is none')\n")
    configure(project, {"default": {"BACKEND": GUNICORN, "OPTIONS": {"worker_class": "gevent"}}})
    result = project.run("check")
    assert result.returncode == 1
    assert "django_wspbus.E012" in result.stderr
    assert "the worker class 'gevent' does not import" in result.stderr
    assert "Traceback" not in result.stderr
