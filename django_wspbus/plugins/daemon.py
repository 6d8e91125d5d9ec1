"""Going into the background, and telling the foreground how the start went."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
from pathlib import Path

from ..wspbus import Refusal

PATIENCE = 5
"""Seconds that a daemon which did not start has to be gone before the shell has its prompt again."""


class Foreground:
    """The process that was started from the shell, seen from the daemon: it waits for one word."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def tell(self, status: int, message: str = "") -> None:
        """Let it leave with a status, and a message if that is not 0. Only the first word counts."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        # After a failure it stays open to the end of this process, for which the foreground waits.
        with (
            contextlib.suppress(BrokenPipeError),  # nobody waits
            open(descriptor, "w", closefd=not status) as pipe,
        ):
            json.dump((status, message), pipe)
            pipe.write("\n")


def daemonize(stdout: Path | None = None, stderr: Path | None = None) -> Foreground | None:
    """Fork into the background, with a session of its own and no terminal; to be called without threads.

    Returns `Foreground` in the daemon. In the process that called it returns None once the daemon
    has said that all is well, and raises `Refusal` with what it said otherwise.
    """
    output = _open(stdout), _open(stderr)
    reader, writer = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    first = os.fork()
    if first:
        os.close(writer)
        for descriptor in output:
            os.close(descriptor)
        os.waitpid(first, 0)
        _await(reader)
        return None
    os.setsid()
    if os.fork():  # only a session's leader can get a terminal again
        os._exit(0)
    os.close(reader)
    _redirect(*output)
    return Foreground(writer)


def _open(path: Path | None) -> int:
    try:
        return os.open(path or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise Refusal(f"The output file {path} cannot be written: {error.strerror}.") from error


def _redirect(stdout: int, stderr: int) -> None:
    stdin = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    for descriptor in (stdin, stdout, stderr):
        if descriptor > 2:
            os.close(descriptor)


def _await(reader: int) -> None:
    with open(reader) as pipe:
        said = pipe.readline()
        status, message = json.loads(said) if said else (1, "The daemon ended during its start.")
        if status:
            select.select([pipe], [], [], PATIENCE)
            raise Refusal(message, status=status)
