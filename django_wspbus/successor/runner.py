"""The first code of every successor: it prepares the process and runs the command of the site in it.

It is executed from memory, with the modules that it imports: see `start.sources`. The command must reach
``runbus``, which takes the order of a child, or the state that the program before has handed over.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

from .invocation import KEPT, ORDER, STATE, Invocation
from .keeper import Keeper
from .program import die_with, execute, formatted, place_sockets, set_up

NOT_REACHED = "its script ended without running the command runbus."


class Overdue(BaseException):
    """The next program of a site takes too long. No `Exception`, because the project may catch those."""


def main(values: dict[str, Any], start: int) -> None:
    """Run the command with the values of `start.write_start`. ``start``: the descriptor of their file."""
    os.set_inheritable(start, False)
    invocation = Invocation(**values["invocation"])
    if values["site"] is not None:
        die_with(values["site"], signal.SIGKILL)
        prepare_child(values, start)
    sys.orig_argv[:] = invocation.words
    if values["kept"] is not None:
        Succession(values, start).run(invocation.command)
        return
    set_up(invocation.command)
    run(invocation.command, values)


def prepare_child(values: dict[str, Any], start: int) -> None:
    """Move the descriptors to their final numbers, and set the variable that leads to the order.

    Until `runbus` takes the order, Python collects no garbage.
    """
    sockets, others = values["sockets"], [start, *values["descriptors"].values()]
    start, *moved = place_sockets(sockets, others)
    values["descriptors"] = dict(zip(values["descriptors"], moved, strict=True))
    os.environ[ORDER] = json.dumps([os.getpid(), start, values["descriptors"], gc.get_threshold()])
    gc.set_threshold(0)  # collecting while Django is imported takes 50 ms and finds next to nothing


def run(command: list[str], values: dict[str, Any]) -> None:
    """Run the command of a child; report to the site if it ends before ``runbus`` takes the order."""
    pid = os.getpid()
    try:
        if values["patch"] == "gevent":
            from gevent import monkey

            monkey.patch_all()
        execute(command)
    except BaseException as error:
        if os.getpid() != pid or ORDER not in os.environ:
            raise
        status, reason = outcome(error, values["folders"])
    else:
        if os.getpid() != pid or ORDER not in os.environ:
            return
        status, reason = 1, NOT_REACHED
    with open(values["descriptors"]["report"], "wb") as report:
        report.write(json.dumps({"refused": reason, "status": status}).encode())
    raise SystemExit(status)


def outcome(error: BaseException, folders: list[str]) -> tuple[int, str]:
    """Return the exit status that an error means, and the reason in words."""
    if not isinstance(error, SystemExit):
        return 1, f"its boot failed: {described(error, folders)}"
    status = error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error.code, str):
        return status, error.code
    if error.__context__ is not None:  # a management command exits like this after it has printed the error
        return status, str(error.__context__) or described(error.__context__, folders)
    return status or 1, f"its boot ended with status {status}." if status else NOT_REACHED


def described(error: BaseException, folders: list[str]) -> str:
    """Return where and why a command failed, in this package's own format if the command can import it."""
    try:
        from django_wspbus.project.tracebacks import explain

        return explain(error)
    except Exception:
        return formatted(error, folders)


class Succession:
    """Runs the next program of a site. If it fails to take over, keeps the site for another attempt."""

    def __init__(self, values: dict[str, Any], start: int) -> None:
        self._keeper = Keeper(start)
        self._values = values
        self._start = start
        self._pid = os.getpid()

    def run(self, command: list[str]) -> None:
        kept = self._keeper.kept
        self._keeper.wait()
        copies = self._keeper.copy()
        os.environ[KEPT] = json.dumps([kept.failures, self._start, *copies])
        os.environ[STATE] = kept.variable
        signal.signal(signal.SIGALRM, self._give_up)
        signal.setitimer(signal.ITIMER_REAL, kept.ready_timeout)
        try:
            set_up(command)
            execute(command)
        except BaseException as error:
            if not self._is_kept():
                raise
            signal.setitimer(signal.ITIMER_REAL, 0)
            status, reason = self._outcome(error)
        else:
            if not self._is_kept():
                return
            signal.setitimer(signal.ITIMER_REAL, 0)
            status, reason = 1, NOT_REACHED
        self._keep(copies, status, reason)

    def _is_kept(self) -> bool:
        return os.getpid() == self._pid and KEPT in os.environ

    def _outcome(self, error: BaseException) -> tuple[int, str]:
        if isinstance(error, Overdue):
            return 1, f'its boot took longer than {error} seconds (WSPBUS["READY_TIMEOUT"]).'
        return outcome(error, self._values["folders"])

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        raise Overdue(f"{self._keeper.kept.ready_timeout:g}")

    def _keep(self, copies: list[int], status: int, reason: str) -> NoReturn:
        self._keeper.restore(copies)
        self._keeper.note_failure(status, reason)
        self._keeper.execute()
