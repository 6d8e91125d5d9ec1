"""The way into the launcher: the process of a command that has bound the sockets becomes it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from .. import debuggers
from ..handover import write_values
from ..messages import Message
from ..streams import open_missing
from .child import ROOT, START


def become(
    *,
    command: list[str],
    options: list[str],
    directory: str,
    held: Iterable[Message] = (),
    debug: bool = True,
) -> NoReturn:
    """Execute the launcher in place of this process.

    ``command``: what to run, [path, ...] or ["-m", module, ...]; ``options``: those of the interpreter;
    ``held``: {"holder", "address", "inode", "descriptor"} of listening sockets; ``debug``: whether clients
    may see why the site does not start.
    """
    held = list(held)
    open_missing()
    start = {"command": command, "options": options, "held": held, "debug": debug}
    handed_over = write_values(start)
    descriptors = [handed_over, *(each["descriptor"] for each in held)]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None
            stream.flush()
    program = START.format(module="launcher", argument="int(sys.argv[2])")
    os.chdir(directory)
    arguments = [sys.executable, "-I", "-S", "-c", program, ROOT, str(handed_over)]
    if debuggers.follows_children():
        debuggers.run_below(arguments, first_environment(), descriptors)
    os.execve(sys.executable, arguments, first_environment())


def first_environment() -> dict[bytes, bytes] | dict[str, str]:
    """Return the environment that this process was started with, where the system tells.

    What the project has set since, it sets again, and may set to something else after an edit; it would be
    too late if it only sets what is not there.
    """
    with contextlib.suppress(OSError):
        pairs = [entry.partition(b"=") for entry in Path("/proc/self/environ").read_bytes().split(b"\0")]
        if environment := {name: value for name, is_pair, value in pairs if name and is_pair}:
            return environment
    return dict(os.environ)
