"""Checks of the programs and management commands of PROCESSES."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping

from django.core.management import get_commands

from ...children.programs.command_line import environment_of
from ...conf import ProcessSettings, is_debug
from ...conf.findings import Problem
from ...successor import start


def check_commands(processes: Mapping[str, ProcessSettings]) -> Iterable[Problem]:
    """Find the COMMANDs that no app has, of the programs that run here."""
    for process in processes.values():
        if not process.runs(debug=is_debug()):  # its app may be installed for development alone
            continue
        name, known = "".join(process.command[:1]), get_commands()
        if name and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Is its app in INSTALLED_APPS?"
            yield Problem("E028", process.path("COMMAND"), f"there is no management command {name!r}.", hint)


def check_programs(processes: Mapping[str, ProcessSettings]) -> Iterable[Problem]:
    """Find the PROGRAMs that this machine does not have."""
    for process in processes.values():
        if process.program and process.runs(debug=is_debug()) and (trouble := _trouble(process)):
            yield Problem("E028", process.path("PROGRAM"), *trouble)


def _trouble(process: ProcessSettings) -> tuple[str, str] | None:
    """Return why a program cannot be run, and the remedy; None if it can."""
    invocation, name = start.original(), process.program[0]
    try:
        path = environment_of(process, invocation).get("PATH", os.defpath)
    except FileNotFoundError:  # the interpreter: no program could be started
        return None
    program = os.path.join(invocation.directory, name) if os.sep in name else name
    entries = (os.path.join(invocation.directory, entry) for entry in path.split(os.pathsep))
    if shutil.which(program, path=os.pathsep.join(entries)) is not None:
        return None
    if os.sep in name and os.path.isfile(program):
        return f"the file {name!r} is not executable.", f"Run: chmod +x {shlex.quote(name)}"
    return f"there is no program {name!r}.", "It takes a program on PATH, or the path of one."
