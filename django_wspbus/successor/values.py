"""Values that one program hands over to the next one, in a file without a name.

An environment variable or an argument holds at most 128 KiB (MAX_ARG_STRLEN); a file has no such limit.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from typing import IO, Any

FORMAT_VERSION = 3
"""The version of the format in which programs of this package hand over values."""


class UnknownVersion(Exception):
    """Another version of this package has handed over the values; the message names it."""


def scratch_file() -> IO[bytes]:
    """Open a file without a name; in memory if possible, because the file system may be read-only."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("django-wspbus"), "w+b")
    return tempfile.TemporaryFile()


def write_values(values: Mapping[str, Any]) -> int:
    """Write values to a new file as JSON; return its descriptor, which an exec closes."""
    with scratch_file() as file:
        file.write(json.dumps({"version": FORMAT_VERSION, "values": values}).encode())
        file.flush()
        return os.dup(file.fileno())


def read_values(descriptor: int) -> dict[str, Any]:
    """Return the values of `write_values`, and close the descriptor. May raise `UnknownVersion`."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        written = json.load(file)
    if written["version"] != FORMAT_VERSION:
        raise UnknownVersion(
            f"The running site hands over its state in version {written['version']}, but the new "
            f"django-wspbus reads version {FORMAT_VERSION}: stop the site and start it again."
        )
    values: dict[str, Any] = written["values"]
    return values


def hand_over(variable: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Write values for the next program of this process; return the variable by which `take_over` finds them.

    Make the descriptor inheritable before the exec: see `descriptor_of`.
    """
    return {variable: f"{os.getpid()}:{write_values(values)}"}


def descriptor_of(variable: str, environment: Mapping[str, str]) -> int:
    """Return the descriptor of the values that `hand_over` wrote."""
    return int(environment[variable].partition(":")[2])


def take_over(variable: str) -> dict[str, Any] | None:
    """Return, once, the values that were handed over to this process; None if there are none."""
    entry = os.environ.pop(variable, "")
    pid, _, descriptor = entry.partition(":")
    return read_values(int(descriptor)) if pid == str(os.getpid()) else None
