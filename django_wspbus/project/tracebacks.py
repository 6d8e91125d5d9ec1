"""Readable text for an error in the project: the line that failed, then the traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from traceback import TracebackException

from . import libraries

TRACEBACK = "Traceback (most recent call last):"


def explain(error: BaseException) -> str:
    """Return the place of an error in the project, its message, and below that its traceback.

    If the error passed only through code of this package, return just its message.
    """
    trace = TracebackException.from_exception(error)
    if all(_is_ours(frame.filename) for frame in trace.stack) and not isinstance(error, SyntaxError):
        return "".join(trace.format_exception_only()).rstrip()
    place = place_of(error)
    head = f"{place}: {summary(error)}" if place else summary(error)
    return f"{head}\n\n{formatted(error)}"


def summary(error: BaseException) -> str:
    """Return the class of an error and the first line of its message."""
    lines = TracebackException(type(error), error, None).format_exception_only()
    # For a SyntaxError, indented lines with the place come first; notes come last.
    return next(line for line in lines if not line.startswith(" ")).partition("\n")[0].rstrip()


def place_of(error: BaseException) -> str | None:
    """Return the last line of the project in an error's traceback, as ``shop/views.py, line 3``."""
    file, number = None, None
    if isinstance(error, SyntaxError) and error.filename is not None:
        file, number = error.filename, error.lineno
    else:
        for frame in TracebackException.from_exception(error, lookup_lines=False).stack:
            if _is_own(frame.filename):
                file, number = frame.filename, frame.lineno
    return None if file is None or file.startswith("<") else f"{shown(file)}, line {number}"


def formatted(error: BaseException) -> str:
    """Return the traceback of an error from its first frame in the project, without Django's frames above."""
    trace = TracebackException.from_exception(error)
    is_entered = any(_is_own(frame.filename) for frame in trace.stack)
    if isinstance(error, SyntaxError) and not is_entered and trace.__context__ is None:
        # The file was being imported, so the project has no frame and the message names the place.
        return "".join([TRACEBACK, "\n", *trace.format_exception_only()]).rstrip()
    for each in _chain(trace):
        own = [index for index, frame in enumerate(each.stack) if _is_own(frame.filename)]
        others = [index for index, frame in enumerate(each.stack) if not _is_ours(frame.filename)]
        if own or others:
            del each.stack[: (own or others)[0]]
    return "".join(trace.format()).rstrip()


def shown(path: str) -> str:
    """Return a path relative to the working directory if it is below that, else unchanged."""
    try:
        here = os.path.relpath(path)
    except (OSError, ValueError):  # the working directory is gone
        return path
    return path if here.startswith(os.pardir) else here


def _chain(trace: TracebackException) -> Iterator[TracebackException]:
    yield trace
    for other in (trace.__cause__, trace.__context__, *(trace.exceptions or ())):
        if other is not None:
            yield from _chain(other)


def _is_own(file: str) -> bool:
    """Return whether a file belongs to the project. The script does not count: every traceback holds it."""
    return libraries.is_project_file(file) and os.path.abspath(file) != os.path.abspath(sys.argv[0])


def _is_ours(file: str) -> bool:
    return file.startswith(("<frozen runpy>", libraries.PACKAGE))
