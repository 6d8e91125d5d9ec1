"""The start of the launcher, in the process of a command that has bound the sockets."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from typing import NoReturn

from ...successor.values import write_values
from ...system.streams import open_missing
from .. import debuggers
from .child import ROOT, START
from .start import LauncherStart


def become(start: LauncherStart) -> NoReturn:
    """Execute the launcher in place of this process."""
    open_missing()
    handed_over = write_values(start.as_values())
    descriptors = [handed_over, *start.descriptors]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None
            stream.flush()
    program = START.format(module="development.launcher", argument="int(sys.argv[2])")
    invocation = start.invocation
    os.chdir(invocation.directory)
    interpreter = invocation.find_interpreter()
    arguments = [interpreter, "-I", "-S", "-c", program, ROOT, str(handed_over), *folder_of_inotify()]
    if debuggers.follows_children():
        debuggers.run_below(arguments, invocation.environment, descriptors)
    os.execve(interpreter, arguments, invocation.environment)


def folder_of_inotify() -> list[str]:
    """Return the folder from which the launcher imports inotify_simple; none if it is not installed."""
    spec = importlib.util.find_spec("inotify_simple")
    return [os.path.dirname(spec.origin)] if spec is not None and spec.origin else []
