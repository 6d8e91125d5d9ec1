"""Replacements for standard streams that the parent of this process has closed."""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Open the null device in place of each closed standard stream.

    Otherwise the next file or socket gets the number of the stream, and this process and its children would
    read from or write to it by mistake.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            stream = open(number, mode, closefd=False)  # noqa: SIM115  # the process needs it to its end
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
