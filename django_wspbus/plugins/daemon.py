"""Daemons: fork into the background, and report the start to the shell."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from pathlib import Path

from ..process.messages import Link, await_event
from ..system.ownership import NO_OWNER, Owner
from ..wspbus import Refusal

MOST_OF_A_MESSAGE = 60_000
"""Characters of an error to show, from its end."""

FOREGROUND_TIMEOUT = 5
"""Seconds for the daemon to send its report, and for the foreground to wait until a failed daemon ends."""


class Foreground:
    """The daemon's link to the process that the shell started, which waits for a report of the start."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._has_reported = False

    def report(self, status: int, message: str = "") -> None:
        """Make the foreground exit with a status and, on failure, a message. Only the first call counts."""
        if self._has_reported:
            return
        self._has_reported = True
        report = {"status": status, "message": message[-MOST_OF_A_MESSAGE:]}
        with contextlib.suppress(OSError):  # the foreground has ended, or is stopped
            self._link.send(report, timeout=FOREGROUND_TIMEOUT)
        if not status:  # after a failure, the open link shows that this process has not ended yet
            self._link.close()


def daemonize(
    stdout: Path | None = None, stderr: Path | None = None, owner: Owner = NO_OWNER
) -> Foreground | None:
    """Fork into the background, with its own session and without a terminal. Call it before starting threads.

    ``owner``: the user that the daemon becomes. That user must be able to reopen the output files.

    Return `Foreground` in the daemon. In the calling process, return None once the daemon has reported
    success, or raise a `Refusal` with its message.
    """
    output = _open(stdout, owner), _open(stderr, owner)
    ours, theirs = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    first = os.fork()
    if first:
        theirs.close()
        for descriptor in output:
            os.close(descriptor)
        os.waitpid(first, 0)
        with contextlib.closing(Link(ours)) as link:
            _await(link)
        return None
    os.setsid()
    if os.fork():  # only a session's leader can acquire a terminal
        os._exit(0)
    ours.close()
    _redirect(*output)
    return Foreground(Link(theirs))


def _open(path: Path | None, owner: Owner) -> int:
    if path is None:
        return os.open(os.devnull, os.O_WRONLY)
    try:
        return owner.open(path)
    except OSError as error:
        raise Refusal(f"The output file {path} cannot be written: {error.strerror}.") from error


def _redirect(stdout: int, stderr: int) -> None:
    stdin = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    for descriptor in (stdin, stdout, stderr):
        if descriptor > 2:
            os.close(descriptor)


def _await(link: Link) -> None:
    messages = link.receive(None)
    if not messages:
        raise Refusal("The daemon ended during its start.")
    (report, _), *_ = messages
    if report["status"]:
        await_event(link, select.POLLIN, FOREGROUND_TIMEOUT)
        raise Refusal(report["message"], status=report["status"])
