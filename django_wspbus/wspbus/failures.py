"""Errors of listeners: how they are collected and shown, and the exit status that they cause."""

from __future__ import annotations

import contextlib
import sys
import traceback

EX_SOFTWARE = 70
"""The exit status of a process in which a listener failed (``sysexits.h``)."""


class Refusal(Exception):
    """An expected failure of a listener: its message is the whole reason, and is logged without a traceback.

    Raised on ``start`` it says that the process must not start: no listener after it runs. ``status`` is
    the exit status of the command.
    """

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class ChannelFailures(Exception):
    """The exceptions that the listeners of one channel raised; false while there are none.

    Printed as an uncaught exception, it shows the traceback of every one of them. ``channel``: the name of
    the channel, if the bus has raised it.
    """

    delimiter = "\n"
    channel: str | None = None

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._exceptions: list[BaseException] = []

    def handle_exception(self) -> None:
        """Append the exception that is being handled."""
        error = sys.exception()
        if error is not None:
            self.append(error)

    def append(self, error: BaseException) -> None:
        """Append an exception."""
        self._exceptions.append(error)

    def get_instances(self) -> list[BaseException]:
        """Return the exceptions, in the order in which they were raised."""
        return self._exceptions[:]

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # part of each printed traceback (PEP 678)
        return [format_traceback(error) for error in self._exceptions]

    def __str__(self) -> str:
        return self.delimiter.join(map(repr, self._exceptions))

    __repr__ = __str__

    def __bool__(self) -> bool:
        return bool(self._exceptions)


def format_traceback(error: BaseException) -> str:
    """Return an exception with its traceback, without a newline at the end."""
    return "".join(traceback.format_exception(error)).rstrip()


def cut_context(error: BaseException, handled: BaseException | None) -> None:
    """Drop the exception already being handled from the error's context."""
    while handled is not None and error.__context__ is not None:
        if error.__context__ is handled:
            error.__context__ = None
            return
        error = error.__context__


def mark_as_failed(error: BaseException) -> None:
    """Replace the status 0 of a SystemExit by 70, as a listener has failed before."""
    if isinstance(error, SystemExit) and not error.code:
        error.code = EX_SOFTWARE


def write_to_stderr(*lines: str) -> None:
    """Write lines to stderr, if that is open."""
    with contextlib.suppress(Exception):  # closed, or None
        sys.stderr.write("\n".join((*lines, "")))
        sys.stderr.flush()
