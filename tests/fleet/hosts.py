"""The hosts of a fleet: sites on this machine, each with releases, and a link to the one that is deployed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..engines import RedisServer
from ..processes import RunningSite
from ..projects import GUNICORN, Project

WORKER = {**GUNICORN, "OPTIONS": {"workers": 1}}

LEASE = 2.0

URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse({version!r}))]
"""


HOLDING = """
import os
import time


@bus.subscribe("start", role="worker")
def wait():
    note("held")
    while not os.path.exists({free!r}):
        time.sleep(0.02)
"""


class Host:
    """``releases/1`` and so on, each a project, and the link ``current``, by which its site is started."""

    def __init__(self, folder: Path, fleet: dict[str, Any], **wspbus: Any) -> None:
        self.folder = folder
        (folder / "releases" / "1").mkdir(parents=True)
        (folder / "journal.txt").touch()
        (folder / "releases" / "1" / "journal.txt").symlink_to("../../journal.txt")  # one for all releases
        self._link(1)
        self.project = Project(folder / "current")
        self.wspbus = {"SERVERS": {"default": WORKER}, "FLEET": fleet, **wspbus}
        self.configure()
        self.project.write("shop/urls.py", URLS.format(version="1"))
        self.number = 1

    def configure(self, **settings: Any) -> None:
        self.project.configure(WSPBUS=self.wspbus, **settings)

    def _link(self, number: int) -> None:
        new = self.folder / "new"
        new.symlink_to(f"releases/{number}")
        new.rename(self.folder / "current")

    def release(self, urls: str | None = None) -> str:
        """Make another release with the page of its number, or with another file of URLs; return its path."""
        releases, before = self.folder / "releases", self.number
        self.number += 1
        shutil.copytree(releases / str(before), releases / str(self.number), symlinks=True)
        self._link(self.number)
        self.project.write("shop/urls.py", urls or URLS.format(version=str(self.number)))
        return self.path

    @property
    def path(self) -> str:
        """The path of the release that is deployed."""
        return str((self.folder / "current").resolve())

    def hold(self) -> None:
        """Have new workers of the release wait in their start listeners, until `let_go`."""
        self._free.unlink(missing_ok=True)
        self.project.listeners(HOLDING.format(free=str(self._free)))

    def let_go(self) -> None:
        self._free.touch()

    @property
    def _free(self) -> Path:
        return self.folder / "free"

    def serve(self, *arguments: str) -> RunningSite:
        return self.project.serve(*arguments)


def fleet_on(server: RedisServer, name: str = "shop") -> dict[str, Any]:
    """Return FLEET over a Redis, with a short lease."""
    backend = "django_wspbus.fleet.redis.RedisFleet"
    return {"NAME": name, "BACKEND": backend, "OPTIONS": {"url": server.url, "lease": LEASE}}
