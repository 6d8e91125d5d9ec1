"""The system checks: whatever is wrong with WSPBUS, all at once."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

from django.core import checks

from . import conf, machine
from .conf import Settings
from .problems import Problem


def check_shapes(**kwargs: Any) -> list[checks.CheckMessage]:
    """Check everything that is the same on every machine."""
    found = list(conf.problems())
    if not any(problem.is_error for problem in found):
        found += machine.check_backends(conf.get())
    return [problem.as_check() for problem in found]


def check_deployment(**kwargs: Any) -> list[checks.CheckMessage]:
    """Check users, paths and applications: ``check --deploy``."""
    if any(problem.is_error for problem in conf.problems()):
        return []
    settings = conf.get()
    if any(problem.is_error for problem in machine.check_backends(settings)):
        return []
    return [problem.as_check() for problem in (*machine.check_machine(settings), *applications(settings))]


def applications(settings: Settings) -> Iterable[Problem]:
    """Check the applications; code of the project that fails at import is a finding too."""
    try:
        return list(machine.check_applications(settings))
    except Exception as error:  # the project's own code: anything may come
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}, line {last.lineno}"
        message = f"the application does not import: {type(error).__name__}: {error} ({where})."
        return [Problem("E005", conf.setting_path("SERVERS"), message)]


def check_all(settings: Settings) -> list[Problem]:
    """Return what `runbus` wants to know before it starts; the applications are for its servers to load."""
    found = list(machine.check_backends(settings))
    if not any(problem.is_error for problem in found):
        found += machine.check_machine(settings)
    return found
