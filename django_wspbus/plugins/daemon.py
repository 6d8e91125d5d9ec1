"""Going into the background, and telling the foreground how the start went."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from pathlib import Path

from ..process.messages import Link, await_event
from ..system.ownership import NO_OWNER, Owner
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin

MOST_OF_A_MESSAGE = 60_000
"""Characters of an error that are shown; it may hold a text of any length."""

PATIENCE = 5
"""Seconds that a daemon which did not start has to be gone before the shell has its prompt again."""


class Foreground:
    """The process that was started from the shell, seen from the daemon: it waits for one message."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_told = False

    def tell(self, status: int, message: str = "") -> None:
        """Make it exit with a status, and a message if that is not 0. Only the first call counts."""
        if self._is_told:
            return
        self._is_told = True
        with contextlib.suppress(OSError):  # it has ended, or is stopped
            self._link.send({"status": status, "message": message[-MOST_OF_A_MESSAGE:]}, timeout=PATIENCE)
        if not status:  # else it stays open to the end of this process, for which the foreground waits
            self._link.close()


class Output(Plugin):
    """The files that a daemon writes its output to: a restart opens them again, by their names.

    So a file that was moved away gets no more of it. The children that boot for the restart have the new
    files from the beginning. A file that cannot be opened keeps the output that it has.
    """

    role = "site"

    def __init__(self, bus: Bus, stdout: Path | None, stderr: Path | None) -> None:
        super().__init__(bus)
        self.paths = {1: stdout, 2: stderr}

    def before_restart(self) -> None:
        failures = {}
        for number, path in self.paths.items():
            if path is not None:
                try:
                    self._open_again(number, path)
                except OSError as error:
                    failures[str(path)] = error.strerror
        if failures:
            which = ", ".join(f"{path} ({reason})" for path, reason in failures.items())
            self.bus.log(f"Output goes on to the files opened before; not opened again: {which}.", level=30)

    before_restart.priority = 10  # type: ignore[attr-defined]  # before children boot

    def _open_again(self, number: int, path: Path) -> None:
        descriptor = NO_OWNER.open(path)  # the site has its user already
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or None
                stream.flush()
        os.dup2(descriptor, number)
        os.close(descriptor)


def daemonize(
    stdout: Path | None = None, stderr: Path | None = None, owner: Owner = NO_OWNER
) -> Foreground | None:
    """Fork into the background, with a session of its own and no terminal; to be called without threads.

    ``owner``: the user that the daemon becomes, who may open the output files again.

    Returns `Foreground` in the daemon. In the process that called it returns None once the daemon
    has said that all is well, and raises `Refusal` with what it said otherwise.
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
    if os.fork():  # only a session's leader can get a terminal again
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
    (said, _), *_ = messages
    if said["status"]:
        await_event(link, select.POLLIN, PATIENCE)
        raise Refusal(said["message"], status=said["status"])
