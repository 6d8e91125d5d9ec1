"""A project that is edited while it is served."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import GUNICORN, SETTINGS, THREADED, Project
from tests.servers.conftest import ask
from tests.servers.load import await_that

both_ways = pytest.mark.parametrize("spare", [True, False], ids=["warm", "cold"])
both_servers = pytest.mark.parametrize("server", [THREADED, GUNICORN], ids=["threaded", "gunicorn"])

VIEWS = """\
import os
import time

from django.http import JsonResponse
from django.shortcuts import render

VERSION = {version}


def version(request):
    return JsonResponse({{"pid": os.getpid(), "version": VERSION}})


def slow(request):
    time.sleep(0.3)
    return version(request)


def page(request, name):
    return render(request, name)
"""

# Written once, and so what is there for all versions.
URLS = """\
import json
import os
import sys
import threading
from importlib import import_module
from pathlib import Path

from django.http import HttpResponse, JsonResponse
from django.urls import path

from . import views


def run(request):
    # Of the tests alone: what a view sees of its process.
    names = {}
    exec(request.GET["code"], names)
    return JsonResponse({"pid": os.getpid(), "result": names["result"]})


urlpatterns = [
    path("version/", views.version),
    path("slow/", views.slow),
    path("page/<path:name>", views.page),
    path("run/", run),
]
"""

APPS = """\
import os

from django.apps import AppConfig

from .journal import note


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        note(f"ready {os.environ.get('RUN_MAIN')}")
        from . import listeners  # noqa: F401
"""

LISTENERS = """\
from functools import partial

from django_wspbus import bus

from .journal import note

for role in ("site", "worker"):
    for channel in ("start", "stop"):
        bus.subscribe(channel, partial(note, f"{role} {channel}"), role=role)
"""

TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["templates"], "APP_DIRS": True}
]


class Development(Project):
    """A project under DEBUG whose view shows a constant, VERSION of ``shop/views.py``.

    Paths: ``/version/``, ``/slow/`` (0.3 s), ``/page/<template>``, and `evaluate` for what a view sees.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.write("shop/apps.py", APPS)
        self.write("shop/listeners.py", LISTENERS)
        self.write("shop/urls.py", URLS)
        self.write("templates/outer.txt", "outer 1")
        self.write("shop/templates/inner.txt", "inner 1")
        self.version = 0
        self.edit()

    def edit(self, version: int | None = None) -> int:
        """Save the view in place, as an editor does, with another constant; return it."""
        self.version = self.version + 1 if version is None else version
        self.write("shop/views.py", VIEWS.format(version=self.version))
        return self.version

    def set_up(
        self, server: dict[str, Any] = THREADED, *, spare: bool = True, apps: Sequence[str] = (), **more: Any
    ) -> None:
        """Write settings.py; ``more``: other settings, and ``wspbus``, ``autoreload``: other keys."""
        autoreload = {"SPARE": spare, **more.pop("autoreload", {})}
        wspbus = {"SERVERS": {"default": server}, "AUTORELOAD": autoreload, **more.pop("wspbus", {})}
        self.configure(
            DEBUG=True,
            TEMPLATES=TEMPLATES,
            INSTALLED_APPS=[*SETTINGS["INSTALLED_APPS"], *apps],
            WSPBUS=wspbus,
            **more,
        )

    @contextlib.contextmanager
    def served(self, *arguments: str, **variables: str) -> Iterator[Served]:
        """Serve the project, first of all; the block ends with its end, which is to go well."""
        with self.serve(*arguments, **variables) as site:
            yield Served(self, site)
            assert site.stop() == 0


class Served:
    """A site in development."""

    def __init__(self, project: Development, site: RunningSite) -> None:
        self.project = project
        self.site = site
        self.address = site.wait_until_started()["default"].removeprefix("http://")
        self.reloads = 0

    def get(self, path: str) -> str:
        status, body = ask(self.address, path)
        assert status == 200, (status, body[:2000])
        return body

    def version(self) -> tuple[int, int]:
        """Return the constant, and the PID of who has told it."""
        told = json.loads(self.get("/version/"))
        return told["version"], told["pid"]

    def evaluate(self, code: str) -> Any:
        """Return what a view finds ``result`` to be."""
        return evaluate(self.address, code)

    @property
    def child(self) -> psutil.Process | None:
        """The site process, as it has told of itself; None if it has ended since."""
        try:
            return psutil.Process(self.project.notes("site start")[-1].pid)
        except psutil.NoSuchProcess:
            return None

    def spares(self) -> list[psutil.Process]:
        """Return the children of the launcher besides the site process."""
        child = self.project.notes("site start")[-1].pid
        return [each for each in psutil.Process(self.site.pid).children() if each.pid != child]

    def await_spare(self) -> int:
        """Wait until there is a spare that is prepared, which then sleeps; return its PID."""
        await_that(lambda: [each for each in self.spares() if sleeps(each)], self.spares)
        (spare,) = self.spares()
        return spare.pid

    def await_reload(self, count: int = 1) -> None:
        """Wait until the site has been started again a number of times more."""
        self.reloads += count
        self.site.wait_for_line(r"^Serving again after", count=self.reloads)

    def await_calm(self) -> None:
        """Wait until the site process does nothing but watch."""
        await_that(lambda: self.child is not None and sleeps(self.child))

    def expect_version(self, version: int) -> int:
        """Wait until the constant is this one; return the PID of who tells it."""
        deadline = time.monotonic() + DEADLINE
        while (told := self.version())[0] != version:
            assert time.monotonic() < deadline, (told, version)
            time.sleep(0.01)
        return told[1]

    def expect_no_reload(self, act: Callable[[], object] = lambda: None) -> None:
        """Assert that no reload comes of what is done: those that are asked for later are the only ones."""
        self.await_calm()
        self.reloads = len(self.restarts())
        act()
        for _ in range(2):
            version = self.project.edit()
            self.await_reload()
            self.expect_version(version)
        assert len(self.restarts()) == self.reloads, self.restarts()
        assert self.changes()[-1].endswith("views.py")

    def restarts(self) -> list[str]:
        return [line for line in self.site.lines if line.startswith("Serving again")]

    def changes(self) -> list[str]:
        """Return the files of which it was said that they have changed."""
        found = (re.fullmatch(r"(.*) changed, reloading\.", line) for line in self.site.lines)
        return [match[1] for match in found if match]


def evaluate(address: str, code: str) -> Any:
    """Return what a view finds ``result`` to be."""
    status, body = ask(address, "/run/?" + urlencode({"code": code}))
    assert status == 200, body[:2000]
    return json.loads(body)["result"]


def sleeps(process: psutil.Process) -> bool:
    """Whether a process has slept for a while."""
    try:
        before = process.cpu_times()
        time.sleep(0.1)
        return process.cpu_times() == before and process.status() == psutil.STATUS_SLEEPING
    except psutil.NoSuchProcess:
        return False


def wakeups(pid: int) -> int:
    """Return how often the threads of a process have been woken up so far."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if "ctxt_switches" in line:
                count += int(line.split()[1])
    return count


def writes_bytecode() -> dict[str, str]:
    return {"PYTHONDONTWRITEBYTECODE": ""}


def touch_slowly(path: Path, halves: tuple[str, str], pause: float) -> None:
    """Write a file in two halves with a pause."""
    with path.open("w") as file:
        file.write(halves[0])
        file.flush()
        os.fsync(file.fileno())
        time.sleep(pause)
        file.write(halves[1])
