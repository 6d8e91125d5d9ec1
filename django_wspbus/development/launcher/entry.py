"""The start of the launcher, in the process of a command that has bound the sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Iterable
from typing import NoReturn

from ...successor.invocation import Invocation
from ...successor.state import ControlState, SocketState
from ...successor.values import write_values
from ...system.streams import open_missing
from .. import debuggers
from .child import ROOT, START


def become(
    invocation: Invocation,
    *,
    sockets: Iterable[SocketState] = (),
    debug: bool = True,
    signals: Iterable[str] = (),
    settings: str = "",
    control: ControlState | bool = False,
) -> NoReturn:
    """Execute the launcher in place of this process.

    ``invocation``: the command that the launcher starts as the site; ``sockets``: the listening sockets;
    ``debug``: whether clients may see why the site does not start; ``signals``: the names of those that it
    handles even if this process ignores them; ``settings``: the settings module; ``control``: the control
    socket, or whether the launcher is to make one.
    """
    sockets = list(sockets)
    open_missing()
    start = {
        "invocation": dataclasses.asdict(invocation),
        "sockets": [dataclasses.asdict(each) for each in sockets],
        "debug": debug,
        "signals": list(signals),
        "settings": settings,
        "control": control if isinstance(control, bool) else dataclasses.asdict(control),
    }
    handed_over = write_values(start)
    descriptors = [handed_over, *(each.descriptor for each in sockets)]
    descriptors += [] if isinstance(control, bool) else control.descriptors
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None
            stream.flush()
    program = START.format(module="development.launcher", argument="int(sys.argv[2])")
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
