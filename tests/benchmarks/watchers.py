"""The servers that reload at a save, and the command that starts each of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .rivals import script

OURS = "django-wspbus"
GUNICORN = "django_wspbus.servers.gunicorn.GunicornServer"


@dataclass(frozen=True)
class Watcher:
    command: Callable[[int], list[str]]
    needs: str = "django"
    """A module that must be installed to start it."""
    apps: str = ""
    """The entries of INSTALLED_APPS that only this server needs."""
    wspbus: Mapping[str, Any] = field(default_factory=dict)
    without: str = ""
    """A module to hide from it, even if it is installed."""

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None

    def environment(self, folder: Path, port: int, shadows: Path) -> dict[str, str]:
        """Return its environment. ``shadows``: an empty folder for modules that hide others."""
        path = [str(folder)]  # some of these commands do not import modules from the working directory
        if self.without:
            text = f"raise ImportError('The benchmark does without {self.without}.')\n"
            (shadows / f"{self.without}.py").write_text(text)
            path.insert(0, str(shadows))
        return {
            "DJANGO_SETTINGS_MODULE": "desk.settings",
            "DESK_APPS": self.apps,
            "DESK_PORT": str(port),
            "DESK_WSPBUS": json.dumps(self.wspbus),
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
        }


def ours(**wspbus: Any) -> Watcher:
    return Watcher(manage("runbus"), apps="django_wspbus", wspbus=wspbus)


def manage(command: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, "manage.py", command, str(port)]


def gunicorn(port: int) -> list[str]:
    return [
        *(script("gunicorn"), "desk.wsgi", "--reload", "--no-control-socket"),
        *("--bind", f"127.0.0.1:{port}"),
    ]


def uvicorn(port: int) -> list[str]:
    return [script("uvicorn"), "desk.asgi:application", "--reload", "--port", str(port)]


def granian(port: int) -> list[str]:
    return [
        *(script("granian"), "desk.wsgi:application", "--interface", "wsgi", "--reload"),
        *("--port", str(port)),
    ]


def cherrypy(port: int) -> list[str]:
    return [sys.executable, "serve_cherrypy.py"]


WATCHERS = {
    OURS: ours(),
    f"{OURS}, no spare": ours(AUTORELOAD={"SPARE": False}),
    f"{OURS}, gunicorn": ours(SERVERS={"default": {"BACKEND": GUNICORN}}),
    f"{OURS}, no inotify": ours(AUTORELOAD={"POLL": True}),
    "runserver": Watcher(manage("runserver")),
    "runserver, django-watchfiles": Watcher(
        manage("runserver"), needs="django_watchfiles", apps="django_watchfiles"
    ),
    "gunicorn --reload": Watcher(gunicorn, needs="gunicorn"),
    "gunicorn --reload, no inotify": Watcher(gunicorn, needs="gunicorn", without="inotify"),
    "uvicorn --reload": Watcher(uvicorn, needs="uvicorn"),
    "granian --reload": Watcher(granian, needs="granian"),
    "CherryPy's Autoreloader": Watcher(cherrypy, needs="cherrypy"),
}

OF_THE_LARGE = [OURS, f"{OURS}, no spare", f"{OURS}, gunicorn", "runserver"]
"""The servers to measure with the large project, only a few because it takes long."""

PACKAGES = (
    *("Django", "django-wspbus", "gunicorn", "uvicorn", "granian", "CherryPy", "django-watchfiles"),
    *("watchfiles", "inotify"),
)
"""The packages to list with their versions: the servers, and optional packages that watch files."""


def versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"no {name}"
