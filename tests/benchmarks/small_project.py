"""A project from `startproject` with one page. The benchmark edits the module of its view."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SETTINGS = """
import json
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "benchmark"
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    *os.environ.get("DESK_APPS", "").split(),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "desk.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
WSGI_APPLICATION = "desk.wsgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "static/"
WSPBUS = json.loads(os.environ.get("DESK_WSPBUS", "{}"))
"""
URLS = """
from django.contrib import admin
from django.urls import path

from desk import views

urlpatterns = [path("", views.index), path("admin/", admin.site.urls)]
"""
VIEWS = """
from django.http import HttpResponse

VERSION = "0"


def index(request):
    return HttpResponse(VERSION, content_type="text/plain")
"""
MANAGE = """
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desk.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""
WSGI = """
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desk.settings")
application = get_wsgi_application()
"""
CHERRYPY = """
import os

import cherrypy
from desk.wsgi import application

# The defaults are those of development: the Autoreloader is on, and polls once a second.
cherrypy.config.update({
    "server.socket_host": "127.0.0.1",
    "server.socket_port": int(os.environ["DESK_PORT"]),
})
cherrypy.tree.graft(application, "")
cherrypy.engine.signals.subscribe()
cherrypy.engine.start()
cherrypy.engine.block()
"""
FILES = {
    "manage.py": MANAGE,
    "serve_cherrypy.py": CHERRYPY,
    "desk/__init__.py": "",
    "desk/settings.py": SETTINGS,
    "desk/urls.py": URLS,
    "desk/views.py": VIEWS,
    "desk/wsgi.py": WSGI,
    "desk/asgi.py": WSGI.replace("wsgi", "asgi"),
}


@dataclass(frozen=True)
class Project:
    folder: Path
    module: Path
    """The module of the view, with a line `VERSION = "..."`."""


@contextlib.contextmanager
def small_project() -> Iterator[Project]:
    with written(FILES) as folder:
        manage(folder, "migrate")
        yield Project(folder, folder / "desk/views.py")


@contextlib.contextmanager
def written(files: Mapping[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        yield folder


def manage(folder: Path, *arguments: str) -> None:
    """Run a command of the project to its end, outside the measured time."""
    command = [sys.executable, "manage.py", *arguments, "--verbosity", "0"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
