"""Values that one program hands over to another, in a file without a name.

A variable of the environment or an argument holds 128 KiB at most (MAX_ARG_STRLEN); a file has no such limit.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from typing import IO, Any

VERSION = 1
"""The version of what programs of this package hand over to each other."""


class UnknownVersion(Exception):
    """Another version of this package has handed over values; the message says which one."""


def scratch_file() -> IO[bytes]:
    """Open a file without a name; in memory if possible, as the file system may be read-only."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("django-wspbus"), "w+b")
    return tempfile.TemporaryFile()


def write_values(values: Mapping[str, Any]) -> int:
    """Write values that JSON knows to a new file; return its descriptor, which an exec closes."""
    with scratch_file() as file:
        file.write(json.dumps({"version": VERSION, "values": values}).encode())
        file.flush()
        return os.dup(file.fileno())


def read_values(descriptor: int) -> dict[str, Any]:
    """Return what `write_values` wrote, and close the descriptor; `UnknownVersion` if another version did."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        written = json.load(file)
    if written["version"] != VERSION:
        raise UnknownVersion(
            f"Another version of django-wspbus handed over version {written['version']} of its state, "
            f"and this one knows version {VERSION}: stop the site and start it again."
        )
    values: dict[str, Any] = written["values"]
    return values


def hand_over(variable: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Write values for this process's next program; return the variable by which `take_over` finds them.

    The descriptor has to be made inheritable for an exec: see `descriptor_of`.
    """
    return {variable: f"{os.getpid()}:{write_values(values)}"}


def descriptor_of(variable: str, environment: Mapping[str, str]) -> int:
    """Return the descriptor of the values that `hand_over` wrote."""
    return int(environment[variable].partition(":")[2])


def take_over(variable: str) -> dict[str, Any] | None:
    """Return, once, what was handed over to this process; None if there is nothing for it."""
    entry = os.environ.pop(variable, "")
    pid, _, descriptor = entry.partition(":")
    return read_values(int(descriptor)) if pid == str(os.getpid()) else None
