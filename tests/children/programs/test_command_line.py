"""The command line of a program: as if it were typed where the site was."""

from __future__ import annotations

import os
import sys

import pytest

from django_wspbus.children.programs.command_line import environment_of, words_of
from django_wspbus.conf import ProcessSettings
from django_wspbus.successor.invocation import Invocation

TASKS = ProcessSettings(alias="tasks", command=("db_worker", "--queue", "q{index}"))


def invocation(*command: str, options: tuple[str, ...] = (), **environment: str) -> Invocation:
    return Invocation(sys.executable, list(options), list(command), "/srv/shop/current", environment)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["manage.py", "runbus"], ["manage.py", "db_worker"]),
        (["/srv/venv/bin/django-admin", "runbus", "-v2"], ["/srv/venv/bin/django-admin", "db_worker"]),
        (["-m", "django", "runbus"], ["-m", "django", "db_worker"]),
        (["-m", "django_wspbus", "runbus"], ["-m", "django", "db_worker"]),
        (["serve.py", "--fast"], ["-m", "django", "db_worker"]),
        (
            ["manage.py", "runbus", "--settings", "shop.live", "--pidfile=x", "--pythonpath=lib"],
            ["manage.py", "db_worker", "--settings", "shop.live", "--pythonpath=lib"],
        ),
    ],
)
def test_a_command_is_run_by_the_program_that_runs_the_site(typed: list[str], words: list[str]) -> None:
    found = words_of(TASKS, 2, invocation(*typed, options=("-Xdev",)))
    assert found == [sys.executable, "-Xdev", *words, "--queue", "q2"]


def test_a_program_is_what_the_settings_say() -> None:
    celery = ProcessSettings(alias="celery", program=("celery", "-n", "w{index}@%h", "{x}"))
    assert words_of(celery, 1, invocation("manage.py", "runbus")) == ["celery", "-n", "w1@%h", "{x}"]


def test_the_environment_is_that_of_the_site_at_its_start_with_the_programs_of_its_interpreter() -> None:
    settings = ProcessSettings(alias="tasks", command=("x",), env={"B": "2"})
    typed = invocation("manage.py", "runbus", A="1", B="1", PATH="/usr/bin", NOTIFY_SOCKET="/run/systemd")
    found = environment_of(settings, typed)
    assert (found["A"], found["B"]) == ("1", "2")
    assert found["PATH"] == f"{os.path.dirname(sys.executable)}{os.pathsep}/usr/bin"
    assert found["PYTHONUNBUFFERED"] == "1"
    assert found["DJANGO_SETTINGS_MODULE"] == "testproject.settings"
    assert "NOTIFY_SOCKET" not in found
