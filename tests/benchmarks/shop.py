"""A small project for deployments: two pages, which both answer the version of the code."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

WORKERS, THREADS = 2, 8
OLD, NEW = "1", "2"
"""The answers of the pages before and after a deployment.

A process that mixes both versions answers both: Django imports models at its boot, but the URLconf and the
views at the first request.
"""

SETTINGS = f"""
import os

SECRET_KEY = "benchmark"
ALLOWED_HOSTS = ["*"]
DATABASES = {{}}
USE_TZ = True
ROOT_URLCONF = "shop.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = [
    "django_wspbus",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "shop",
]
WSPBUS = {{
    "SERVERS": {{
        "default": {{
            "BIND": "127.0.0.1:" + os.environ["SHOP_PORT"],
            "OPTIONS": {{"workers": {WORKERS}, "threads": {THREADS}}},
        }},
    }},
}}
"""
VIEWS = """
import time

from django.http import HttpResponse

from . import content, models

VERSION = " and ".join(sorted({models.VERSION, content.VERSION}))


def index(request):
    return HttpResponse(VERSION)


def slow(request):
    time.sleep(1)
    return HttpResponse(VERSION)
"""
URLS = """
from django.urls import path

from . import views

urlpatterns = [path("", views.index), path("slow", views.slow)]
"""
MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
WSGI = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
CHERRYPY = f"""
import os

import cherrypy
from shop.wsgi import application

cherrypy.config.update({{
    "engine.autoreload.on": False,
    "log.screen": False,
    "server.socket_host": "127.0.0.1",
    "server.socket_port": int(os.environ["SHOP_PORT"]),
    "server.thread_pool": {WORKERS * THREADS},
}})
cherrypy.tree.graft(application, "")
# Its own handler of SIGHUP exits where the process is no daemon.
cherrypy.engine.signal_handler.handlers["SIGHUP"] = cherrypy.engine.restart
cherrypy.engine.signals.subscribe()
cherrypy.engine.start()
cherrypy.engine.block()
"""
FILES = {
    "manage.py": MANAGE,
    "serve_cherrypy.py": CHERRYPY,
    "shop/__init__.py": "",
    "shop/settings.py": SETTINGS,
    "shop/urls.py": URLS,
    "shop/views.py": VIEWS,
    "shop/wsgi.py": WSGI,
}


@contextlib.contextmanager
def project() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shop").mkdir()
        for file, text in FILES.items():
            (folder / file).write_text(text)
        deploy(folder, OLD)
        yield folder


def deploy(folder: Path, version: str, *, boot: float = 0, broken: str = "") -> None:
    """Write a version that takes ``boot`` seconds more to boot. ``broken``: a module to break, if any."""
    (folder / "shop/content.py").write_text(f'VERSION = "{version}"\n')
    (folder / "shop/models.py").write_text(f'import time\n\nVERSION = "{version}"\ntime.sleep({boot})\n')
    if broken:
        with (folder / f"shop/{broken}.py").open("a") as module:
            module.write("\ndef broken(:\n")
