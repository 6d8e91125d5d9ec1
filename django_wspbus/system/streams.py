"""Standard input, output and error, where the parent of this process has closed them."""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Open the null device in place of the standard streams that are closed.

    Else the next file or socket gets the number of one of them, and whatever reads or writes it, a child
    above all, takes that for the stream.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            stream = open(number, mode, closefd=False)  # noqa: SIM115  # for as long as the process lives
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
