"""The system checks of WSPBUS, and the checks that `runbus` makes before it starts."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from ... import conf
from ...conf.findings import Problem

if TYPE_CHECKING:
    from django.core.checks import CheckMessage

    from ...conf import Settings
    from ...successor.state import Holdings

# The modules beside this one are imported when a check runs: every management command imports this one.


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check the shape of WSPBUS, the backends that it names, and their options."""
    from .backends import check_backends

    found = list(conf.problems())
    if not any(problem.is_error for problem in found):
        found += check_backends(conf.get())
    return [problem.as_check() for problem in found]


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Check users, paths and applications: ``check --deploy``."""
    from .backends import check_backends
    from .machine import check_machine

    if any(problem.is_error for problem in conf.problems()):
        return []
    settings = conf.get()
    if any(problem.is_error for problem in check_backends(settings)):
        return []
    return [problem.as_check() for problem in (*check_machine(settings), *applications(settings))]


def applications(settings: Settings) -> list[Problem]:
    """Check the applications; an error in the project's own code is a finding, too."""
    from .backends import check_applications

    try:
        return list(check_applications(settings))
    except Exception as error:  # the project's own code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}, line {last.lineno}"
        message = f"the application does not import: {type(error).__name__}: {error} ({where})."
        return [Problem("E005", conf.setting_path("SERVERS"), message)]


def check_start(settings: Settings, held: Holdings | None = None) -> list[Problem]:
    """Check all that `runbus` needs to start, except the applications, which the servers load.

    ``held``: what the site already has, over a restart, and does not need to obtain again.
    """
    from .backends import check_backends
    from .machine import check_machine

    found = list(check_backends(settings))
    if not any(problem.is_error for problem in found):
        found += check_machine(settings, held)
    return found
