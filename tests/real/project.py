"""A project that another program generates, with an added app, in releases below a ``current`` link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import DEADLINE
from tests.projects import JOURNAL, Project

TIMEOUT = 10 * DEADLINE
"""Seconds for a boot or a command, more than elsewhere because these projects import five times as much."""

APP = "deploys"
"""The app that is added to each project. Its pages show what serves; its listeners write the journal."""

VIEWS = """\
import os
import time

from django.conf import settings
from django.contrib.auth.models import User
from django.http import JsonResponse

from .version import VERSION


def version(request):
    users = User.objects.count()
    mode = getattr(settings, "MODE", None)
    return JsonResponse({"pid": os.getpid(), "version": VERSION, "mode": mode, "users": users})


def slow(request):
    time.sleep(1)
    return version(request)
"""

URLS = """\
from django.urls import path

from . import views

urlpatterns = [path("version/", views.version), path("slow/", views.slow)]
"""

APPS = f"""\
from django.apps import AppConfig


class DeploysConfig(AppConfig):
    name = "{APP}"

    def ready(self):
        from . import listeners  # noqa: F401
"""

IMPORT = "from django.urls import include, path"

LISTENERS = """\
import threading
from functools import partial

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from django_wspbus import bus

from .journal import note

for role in ("site", "worker"):
    for channel in ("start", "stop"):
        bus.subscribe(channel, partial(note, f"{role} {channel}"), role=role)


@bus.subscribe("start")
def refuse_the_schema_of_another_release():
    if settings.DEBUG:
        return
    executor = MigrationExecutor(connection)
    if plan := executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise RuntimeError(f"Not migrated: {plan[0][0]}")


@bus.lifespan
def consumer():
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="consumer")
    thread.start()
    note("consumer began")
    yield
    done.set()
    thread.join()
    note("consumer ended")
"""


@dataclass(frozen=True)
class Edit:
    """A developer's change of a file, and the text that a page then shows."""

    file: str
    old: str
    new: str
    page: str
    shows: str

    def apply(self, project: RealProject) -> None:
        project.edit(self.file, self.old, self.new)


@dataclass
class RealProject(Project):
    """``releases/1``, ``releases/2``, ... with a ``current`` link and shared files.

    - ``base``: the folder of all releases; ``create(folder)`` makes the first one
    - ``settings``: the module in development, and in production; ``urls``: the file of the URLconf
    - ``shared``: {path: text} of files that are links into ``shared/``; ``@mode@`` and ``@debug@`` stand for
      the values of the settings MODE and DEBUG
    - ``pages``: paths that answer 200 in development and in production
    - ``view``, ``template``, ``model`` (a new field), ``setting``: edits in development
    - ``variables``: further variables of the environment
    """

    name: str
    base: Path
    create: Callable[[Path], None]
    settings: tuple[str, str]
    urls: str
    shared: dict[str, str]
    pages: list[str]
    view: Edit
    template: Edit
    model: Edit
    setting: Edit
    variables: dict[str, str] = field(default_factory=dict)
    is_in_production: bool = False

    def __post_init__(self) -> None:
        self.root = self.base / "current"
        self.version = 0
        for folder in ("releases", "shared"):
            (self.base / folder).mkdir(parents=True)

    # The files

    def build(self) -> None:
        """Make the first release with the app, and a database."""
        first = self.base / "releases" / "1"
        first.mkdir()
        self.create(first)
        run_tool(first, "django", "startapp", APP)
        self.point_to(first)
        for name, text in {
            "journal": f"{JOURNAL}\n\nPATH = PATH.resolve()  # the link is gone with its release\n",
            "views": VIEWS,
            "urls": URLS,
            "apps": APPS,
            "listeners": LISTENERS,
        }.items():
            self.write(f"{APP}/{name}.py", text)
        # At the beginning, because in some projects the last pattern matches every path.
        include = f'urlpatterns = [path("", include("{APP}.urls"))]\nurlpatterns += ['
        self.edit(self.urls, "urlpatterns = [", f"{IMPORT}\n{include}")
        self.save_version(1)
        for name in (*self.shared, "journal.txt", "db.sqlite3"):
            (self.root / name).symlink_to(self.base / "shared" / Path(name).name)
        self.set_mode("none")
        self.manage_py("makemigrations")
        self.manage_py("migrate")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text in a file of the release. As in many editors, a new file replaces the old one."""
        path = self.root / file
        source = path.read_text()
        assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {path}"
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(source.replace(old, new))
        temporary.rename(path)

    def save_version(self, version: int) -> None:
        self.version = version
        self.write(f"{APP}/version.py", f"VERSION = {version}\n")

    def set_mode(self, mode: str) -> None:
        """Write the shared files, from which settings take MODE."""
        debug = str(not self.is_in_production)
        for name, text in self.shared.items():
            path = self.base / "shared" / Path(name).name
            path.write_text(text.replace("@mode@", mode).replace("@debug@", debug))

    def forget(self) -> None:
        """Empty the journal."""
        (self.base / "shared" / "journal.txt").write_text("")

    # Releases

    @property
    def release(self) -> Path:
        return self.root.resolve()

    def point_to(self, release: Path) -> None:
        """Point ``current`` to another release, in one step."""
        link = self.base / "current.new"
        link.symlink_to(release)
        link.rename(self.base / "current")

    def deploy(self) -> Path:
        """Deploy a copy of the current release with the next version; return the old release."""
        before = self.release
        version = self.version + 1
        after = before.with_name(str(version))
        shutil.copytree(before, after, symlinks=True)
        self.point_to(after)
        self.save_version(version)
        return before

    # Commands

    @property
    def manage(self) -> str:
        return "manage.py"

    @property
    def environment(self) -> dict[str, str]:
        """The variables to add for a program. PWD names the link ``current``, as a shell does."""
        module = self.settings[self.is_in_production]
        return {"DJANGO_SETTINGS_MODULE": module, "PWD": str(self.root), **self.variables}

    def manage_py(self, *arguments: str) -> str:
        """Run a command of ``manage.py``, assert that it succeeds, and return its output."""
        result = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.root,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert result.returncode == 0, f"{arguments}\n{result.stdout}{result.stderr}"
        return result.stdout + result.stderr


def run_tool(folder: Path, *command: str) -> None:
    """Run a Python module that generates a project in a folder."""
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    command = (sys.executable, "-m", *command)
    subprocess.run(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, timeout=TIMEOUT, check=True)
