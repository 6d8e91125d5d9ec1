"""PROCESSES with task workers of other authors: of django-tasks' database backend, and celery with beat."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.processes import DEADLINE
from tests.projects import SETTINGS, THREADED, Project

pytestmark = pytest.mark.extended

CELERY = """\
import os
from pathlib import Path

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
folder = str(Path(__file__).parent.parent / "messages")
app = Celery("shop", broker="filesystem://")
app.conf.update(
    beat_schedule={"tick": {"task": "shop.tasks.tick", "schedule": 0.3}},
    broker_transport_options={f"{name}_folder": folder for name in ("control", "processed")}
    | {f"data_folder_{way}": folder for way in ("in", "out")},
    task_ignore_result=True,
)
app.autodiscover_tasks()
"""

TASKS = """\
from celery import shared_task

try:
    from django.tasks import task
except ImportError:  # Django 5.2
    from django_tasks import task

from .journal import note


@shared_task
def tick():
    note("tick")
    greet.enqueue()


@task()
def greet():
    note("greets")
"""

BEAT = ["--beat", "--schedule", "schedule"]

PROCESSES = {
    "tasks": {"COMMAND": ["db_worker", "--interval", "0.1", "--no-startup-delay"]},
    "celery": {"PROGRAM": ["celery", "-A", "shop.celery", "worker", "-c", "1", "-n", "w{index}@%h", *BEAT]},
}

WARNINGS = {"PYTHONWARNINGS": "ignore"}
"""Those of these libraries are no errors."""


def test_kill_9_of_the_site_ends_the_workers_of_django_tasks_and_of_celery_with_its_pool(
    project: Project,
) -> None:
    pytest.importorskip("celery")
    pytest.importorskip("django_tasks_db")
    project.write("shop/celery.py", CELERY)
    project.write("shop/tasks.py", TASKS)
    (project.root / "messages").mkdir()
    project.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(project.root / "db")}},
        INSTALLED_APPS=[*SETTINGS["INSTALLED_APPS"], "django_tasks_db"],
        TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default"]}},
        WSPBUS={
            "SERVERS": {"default": THREADED},
            "PROCESSES": PROCESSES,
        },
    )
    migrated = project.run("migrate", "-v0", **WARNINGS)
    assert migrated.returncode == 0, migrated.stderr
    with project.serve(**WARNINGS) as site:
        site.wait_until_started()
        pool, worker = project.expect_note("tick")[0].pid, project.expect_note("greets")[0].pid
        members = site.members()
        assert {site.pid, pool, worker} <= {each.pid for each in members}
        site.send(signal.SIGKILL)
        assert psutil.wait_procs(members, DEADLINE)[1] == []
        site.wait_for_members()
