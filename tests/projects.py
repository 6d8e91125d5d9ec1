"""A small Django project in its own folder, which tests run as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .fork_server import INTERPRETER
from .processes import DEADLINE, Running, RunningSite, run

GUNICORN = {"BACKEND": "django_wspbus.servers.gunicorn.GunicornServer", "BIND": "127.0.0.1:0"}
THREADED = {"BACKEND": "django_wspbus.servers.threaded.ThreadedServer", "BIND": "127.0.0.1:0"}

MANAGE = """\
import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    execute_from_command_line(sys.argv)
"""

SETTINGS = {
    "SECRET_KEY": "a project that a test has made",
    "DEBUG": False,
    "ALLOWED_HOSTS": ["*"],
    "ROOT_URLCONF": "shop.urls",
    "INSTALLED_APPS": ["django_wspbus", "shop"],
    "USE_TZ": True,
}

APPS = """\
from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        from . import listeners  # noqa: F401
"""

# Each line is one write to a file opened for appending, so that lines of several processes do not mix.
JOURNAL = """\
import os
from pathlib import Path

PATH = Path(__file__).parent.parent / "journal.txt"


def note(event):
    descriptor = os.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{os.getpid()} {event}\\n".encode())
    finally:
        os.close(descriptor)
"""

LISTENERS = """\
from functools import partial

from django_wspbus import bus

from .journal import note

for role in ("site", "worker"):
    for channel in ("start", "stop", "graceful", "exit"):
        bus.subscribe(channel, partial(note, f"{role} {channel}"), role=role)
"""

URLS = """\
import os

from django.http import HttpResponse
from django.urls import path

from django_wspbus import bus


def answer(request):
    return HttpResponse(f"{os.getpid()} {bus.state.name}")


urlpatterns = [path("", answer)]
"""

WSGI = """\
import os

from django_wspbus.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
application = get_wsgi_application()
"""

# Two listeners: one that waits as the package's own do, and one after it.
SLOW_START = """
@bus.subscribe("start", role="{role}")
def slow():
    note("slow start")
    bus.wait_for(lambda: False, 20)


bus.subscribe("start", lambda: note("too late"), 60, role="{role}")
"""


@dataclass(frozen=True)
class Note:
    """A line of the journal: the event, and the process in which it happened."""

    pid: int
    event: str


class Project:
    """``manage.py``, ``settings.py``, and the app ``shop``, whose listeners write a journal.

    The page ``/`` shows the PID of the process that serves it, and the state of its bus. Tests may rewrite
    each file: ``shop/listeners.py``, ``shop/urls.py``, ``shop/wsgi.py``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("manage.py", MANAGE)
        self.write("shop/__init__.py", "")
        self.write("shop/apps.py", APPS)
        self.write("shop/journal.py", JOURNAL)
        self.write("shop/listeners.py", LISTENERS)
        self.write("shop/urls.py", URLS)
        self.write("shop/wsgi.py", WSGI)
        self.configure()

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def configure(self, **settings: Any) -> None:
        """Write settings.py: `SETTINGS`, overridden by the arguments."""
        values = {**SETTINGS, **settings}
        self.write("settings.py", "".join(f"{name} = {value!r}\n" for name, value in values.items()))

    def serves(self, server: dict[str, Any], **wspbus: Any) -> None:
        """Write settings.py with one server, and other keys of WSPBUS."""
        self.configure(WSPBUS={"SERVERS": {"default": server}, **wspbus})

    def listeners(self, source: str) -> None:
        """Write shop/listeners.py, with ``bus``, ``every`` and ``note`` imported."""
        head = "from django_wspbus import bus, every\n\nfrom .journal import note\n\n"
        self.write("shop/listeners.py", head + source)

    @property
    def manage(self) -> str:
        return str(self.root / "manage.py")

    @property
    def environment(self) -> dict[str, str]:
        """The variables to add for a program: the settings module, warnings as errors, no bytecode."""
        return {"DJANGO_SETTINGS_MODULE": "settings", **INTERPRETER}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``manage.py`` to its end."""
        command = [sys.executable, self.manage, *arguments]
        return run(command, env=os.environ | self.environment | variables, cwd=self.root)

    def start(self, *command: str, **variables: str) -> Running:
        """Return a program in the project's folder, as a context manager."""
        return Running(*command, env=self.environment | variables, cwd=self.root)

    def serve(self, *arguments: str, **variables: str) -> RunningSite:
        """Return ``manage.py runbus`` with arguments, as a context manager."""
        return RunningSite(*arguments, manage=self.manage, env=self.environment | variables, cwd=self.root)

    def notes(self, event: str | None = None) -> list[Note]:
        """Return the notes in the journal: all, or those of one event."""
        try:
            lines = (self.root / "journal.txt").read_text().splitlines()
        except FileNotFoundError:
            return []
        notes = [Note(int(pid), what) for pid, _, what in (line.partition(" ") for line in lines)]
        return [note for note in notes if event in (None, note.event)]

    def events(self) -> list[str]:
        """Return the events in the journal, of all processes, in order."""
        return [note.event for note in self.notes()]

    def expect_note(self, event: str, count: int = 1, pid: int | None = None) -> list[Note]:
        """Wait until the journal holds an event ``count`` times, of one process or any; return its notes."""
        deadline = time.monotonic() + DEADLINE
        while len(found := [each for each in self.notes(event) if pid in (None, each.pid)]) < count:
            assert time.monotonic() < deadline, f"No {count} of {event!r} in {self.notes()}"
            time.sleep(0.01)
        return found


def reason_of(result: subprocess.CompletedProcess[str]) -> str:
    """Return the reason why a command did not run, which must be its only line of output."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line
