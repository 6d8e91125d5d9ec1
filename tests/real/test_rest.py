"""A project as ``startproject`` makes it, with what many projects install, on PostgreSQL with a pool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import PostgresServer
from tests.servers.clients import ask

from .journey import Journey, Step, develop, operate
from .project import Edit, RealProject, run_tool

pytestmark = [pytest.mark.extended, pytest.mark.usefixtures("new_interpreters")]

ENVIRONMENT = """\
SECRET_KEY=a secret of this machine
DEBUG=@debug@
MODE=@mode@
"""

SETTINGS = """

import environ

env = environ.Env()
environ.Env.read_env(BASE_DIR / ".env")

SECRET_KEY = env("SECRET_KEY")
DEBUG = env.bool("DEBUG")
MODE = env("MODE")
GREETING = "Good morning"
ALLOWED_HOSTS = ["localhost"]
DATABASES = {"default": {**env.db(), "OPTIONS": {"pool": True}}}

INSTALLED_APPS += ["rest_framework", "django_celery_beat", "notes", "deploys", "django_wspbus"]
MIDDLEWARE.insert(1, "whitenoise.middleware.WhiteNoiseMiddleware")
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# Beat runs the tasks itself, which needs no broker.
CELERY_BROKER_URL = "memory://"
CELERY_TASK_ALWAYS_EAGER = True
BEAT = ["celery", "-A", "config", "beat", "--pidfile="]
BEAT += ["--scheduler", "django_celery_beat.schedulers:DatabaseScheduler"]
CELERY_BEAT_SCHEDULE = {"tick": {"task": "notes.tasks.tick", "schedule": 1.0}}

if DEBUG:
    INSTALLED_APPS.append("debug_toolbar")
    MIDDLEWARE.insert(0, "debug_toolbar.middleware.DebugToolbarMiddleware")
    INTERNAL_IPS = ["127.0.0.1"]
    STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"
    WSPBUS = {"AUTORELOAD": {"EXTRA_FILES": [BASE_DIR / ".env"]}}
else:
    WSPBUS = {
        "SERVERS": {"default": {"BIND": "127.0.0.1:0", "OPTIONS": {"workers": 2, "threads": 4}}},
        "HEALTH": f"unix:{BASE_DIR.resolve().parent.parent}/shared/health.sock",
        "READY_TIMEOUT": 300,
        "WARMUP": ["/", "/api/notes/"],
        "PROCESSES": {"beat": {"PROGRAM": BEAT}},
    }
"""

CELERY = """\
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
app = Celery("config")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

NOTES = {
    "models": """\
from django.db import models


class Note(models.Model):
    text = models.CharField(max_length=100)
""",
    "views": """\
from django.conf import settings
from django.shortcuts import render
from rest_framework import serializers, viewsets
from rest_framework.decorators import api_view
from rest_framework.response import Response

from .models import Note


class NoteSerializer(serializers.ModelSerializer):
    class Meta:
        model = Note
        fields = "__all__"


class NoteViewSet(viewsets.ModelViewSet):
    queryset = Note.objects.order_by("pk")
    serializer_class = NoteSerializer


@api_view()
def hello(request):
    return Response({"hello": settings.GREETING})


def index(request):
    return render(request, "notes/index.html", {"notes": Note.objects.all()})
""",
    "urls": """\
from django.conf import settings
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from . import views

router = DefaultRouter()
router.register("notes", views.NoteViewSet)
urlpatterns = [path("", views.index), path("api/hello/", views.hello), path("api/", include(router.urls))]
if settings.DEBUG:
    from debug_toolbar.toolbar import debug_toolbar_urls

    urlpatterns += debug_toolbar_urls()
""",
    "tasks": """\
from celery import shared_task

from deploys.journal import note


@shared_task
def tick():
    note("task")
""",
    "apps": """\
from django.apps import AppConfig


class NotesConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "notes"

    def ready(self):
        from . import listeners  # noqa: F401
""",
    "listeners": """\
from functools import partial

from apscheduler.schedulers.background import BackgroundScheduler

from deploys.journal import note
from django_wspbus import bus


@bus.lifespan(role="site")
def jobs():
    scheduler = BackgroundScheduler()
    scheduler.add_job(partial(note, "job"), "interval", seconds=1)
    scheduler.start()
    yield
    scheduler.shutdown()
""",
}

INDEX_FILE = "notes/templates/notes/index.html"
INDEX = "<html><body><h1>Notes</h1>{% for note in notes %}<p>{{ note.text }}</p>{% endfor %}</body></html>\n"

CREATE_NOTE = "from notes.models import Note; Note.objects.create(text='Buy milk')"


def create(folder: Path) -> None:
    run_tool(folder, "django", "startproject", "config", str(folder))
    run_tool(folder, "django", "startapp", "notes")
    with (folder / "config/settings.py").open("a") as settings:
        settings.write(SETTINGS)
    (folder / "config/celery.py").write_text(CELERY)
    (folder / "config/__init__.py").write_text("from .celery import app as celery_app\n")
    for name, source in NOTES.items():
        (folder / f"notes/{name}.py").write_text(source)
    (folder / "notes/templates/notes").mkdir(parents=True)
    (folder / INDEX_FILE).write_text(INDEX)
    urls = folder / "config/urls.py"
    urls.write_text(f'{urls.read_text()}\nurlpatterns += [path("", include("notes.urls"))]\n')


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProject]:
    pytest.importorskip("rest_framework")
    with PostgresServer() as server:
        server.start()
        url = f"postgres://shop@127.0.0.1:{server.port}/postgres"
        project = RealProject(
            name="rest",
            base=tmp_path_factory.mktemp("rest"),
            create=create,
            settings=("config.settings", "config.settings"),
            urls="config/urls.py",
            shared={".env": ENVIRONMENT},
            pages=["/", "/api/notes/", "/admin/login/", "/static/rest_framework/css/default.css"],
            view=Edit("notes/views.py", '{"hello":', '{"hello, world":', "/api/hello/", "hello, world"),
            template=Edit(INDEX_FILE, "<h1>Notes", "<h1>Your notes", "/", "Your notes"),
            model=Edit(
                "notes/models.py",
                "max_length=100)\n",
                "max_length=100)\n    pinned = models.BooleanField(default=False)\n",
                "/api/notes/",
                '"pinned":false',
            ),
            setting=Edit("config/settings.py", "Good morning", "Good evening", "/api/hello/", "Good evening"),
            variables={"DATABASE_URL": url},
        )
        project.build()
        project.manage_py("shell", "-c", CREATE_NOTE)
        yield project


def look_while_developing(journey: Journey) -> None:
    """The toolbar shows the queries of a page, and a new value in .env is in effect."""
    page = journey.get("/")
    (request,) = re.findall(r'data-request-id="(\w+)"', page)
    panel = journey.get(f"/__debug__/render_panel/?request_id={request}&panel_id=SQLPanel")
    assert "notes_note" in panel
    journey.project.set_mode("edited")
    journey.await_page("/version/", '"mode": "edited"')


def look_in_production(journey: Journey) -> None:
    """Celery and APScheduler run in one process each, and the probes say that all is well."""
    project = journey.project
    for what in ("task", "job"):
        project.expect_note(what, len(project.notes(what)) + 2)
        assert len({note.pid for note in project.notes(what)[-2:]}) == 1
    health = f"unix:{project.base}/shared/health.sock"
    assert ask(health, "/readyz")[0] == ask(health, "/livez")[0] == 200


def test_development(project: RealProject, steps: list[Step]) -> None:
    develop(project, steps, look_while_developing)


def test_production(project: RealProject, steps: list[Step]) -> None:
    operate(project, steps, look_in_production)
