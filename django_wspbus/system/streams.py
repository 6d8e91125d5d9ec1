"""Standard streams that are closed, or that take no output any more."""

from __future__ import annotations

import atexit
import contextlib
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


def survive_lost_output() -> None:
    """Keep the exit status of this process although its last output cannot be written.

    Without this, the interpreter exits with status 120 if the reader of a pipe has gone, or the disk is full.
    """
    atexit.unregister(_drop_unwritable)
    atexit.register(_drop_unwritable)


def _drop_unwritable() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                descriptor = os.open(os.devnull, os.O_WRONLY)
                os.dup2(descriptor, stream.fileno())  # the interpreter flushes once more
                os.close(descriptor)
        except (AttributeError, ValueError):  # None, or closed
            pass
