"""The system checks: whatever is wrong with WSPBUS, all at once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterable
from typing import Any, NoReturn

from django.core import checks

from .. import conf
from ..conf import Settings
from ..conf.findings import Problem
from ..process.messages import Link, Received
from ..successor.inheritance import Inheritance
from . import machine


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


def check_all(settings: Settings, held: Inheritance | None = None) -> list[Problem]:
    """Return what `runbus` wants to know before it starts; the applications are for its servers to load.

    What the site holds already, over a restart, need not be to be had once more.
    """
    found = check_backends_apart(settings)
    if not any(problem.is_error for problem in found):
        found += machine.check_machine(settings, held)
    return found


def check_backends_apart(settings: Settings) -> list[Problem]:
    """Check the backends in a process that ends with it.

    gunicorn's settings weigh 1.6 MB, of which the site process needs nothing after the check.
    """
    messages: list[Received] | None = None
    # Else a fork might find locks held for ever, or a loop of events that is another process's.
    if threading.active_count() == 1 and "gevent" not in sys.modules:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            _send_and_exit(settings, Link(theirs))
        theirs.close()
        with contextlib.closing(Link(ours)) as link:
            messages = link.receive(None)
        os.waitpid(pid, 0)
    if not messages:  # it failed: here it will fail where it can be seen
        return list(machine.check_backends(settings))
    return [Problem(*values) for values in messages[0].message["problems"]]


def _send_and_exit(settings: Settings, link: Link) -> NoReturn:
    with contextlib.suppress(BaseException):
        link.send({"problems": [dataclasses.astuple(each) for each in machine.check_backends(settings)]})
    os._exit(0)
