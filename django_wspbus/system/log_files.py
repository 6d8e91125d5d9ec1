"""Reopening log files by their names, after log rotation has moved them.

A file is never truncated, and no record is lost: the old file is closed once the new one is in its place. A
file that cannot be opened is named, and what is logged goes on to the old one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from .ownership import NO_OWNER


@dataclass(slots=True)
class Reopened:
    """The files that a process has opened again."""

    files: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """A path and a reason for each file that could not be opened."""

    def add(self, other: Reopened) -> None:
        """Add the files of another process, each once."""
        self.files = sorted({*self.files, *other.files})
        self.failures = sorted({*self.failures, *other.failures})


def reopen(outputs: Mapping[int, Path | None]) -> Reopened:
    """Reopen the files of this process's standard streams, and of its handlers of `logging`.

    ``outputs``: descriptor -> path of the file to which it writes, if any.
    """
    found = reopen_streams(outputs)
    for handler in file_handlers():
        with _noting(found, handler.baseFilename) as noted:
            noted.is_reopened = reopen_handler(handler)
    return found


def reopen_streams(outputs: Mapping[int, Path | None]) -> Reopened:
    """Reopen the files of standard streams only."""
    found = Reopened()
    for number, path in outputs.items():
        if path is not None:
            with _noting(found, path):
                reopen_stream(number, path)
    return found


@dataclass(slots=True)
class _Noted:
    is_reopened: bool = True


@contextlib.contextmanager
def _noting(found: Reopened, path: Path | str) -> Iterator[_Noted]:
    """Add a path to those reopened, or to the failures if an error is raised."""
    noted, path = _Noted(), os.path.abspath(path)
    try:
        yield noted
    except OSError as error:
        found.failures.append(f"{path} ({error.strerror or error})")
    except Exception as error:  # a handler may be of a class of the project
        found.failures.append(f"{path} ({type(error).__name__}: {error})")
    else:
        if noted.is_reopened:
            found.files.append(path)


def reopen_stream(number: int, path: Path) -> None:
    """Make a descriptor of this process write to the file that has the path now; OSError if that fails."""
    descriptor = NO_OWNER.open(path)  # the site has already become its user
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None
            stream.flush()
    os.dup2(descriptor, number)
    os.close(descriptor)


def reopen_handler(handler: logging.FileHandler) -> bool:
    """Make a handler write to the file that has its name now; return False if it has not opened any.

    The lock of the handler is held meanwhile, so that a record of another thread goes to one of the files. Do
    not call this in a signal handler, which may interrupt the thread that holds the lock.
    """
    handler.acquire()
    try:
        old: Any = handler.stream
        if old is None or not _is_regular(old):  # opening a pipe may wait for its reader
            return False
        mode = handler.mode
        handler.mode = "a" + mode.lstrip("wax")  # "w" would truncate the file, in other processes, too
        try:
            new = handler._open()
        finally:
            handler.mode = mode
        handler.stream = new
        if isinstance(handler, WatchedFileHandler):  # else it would open the file again, with its own mode
            status = os.fstat(new.fileno())
            handler.dev, handler.ino = status.st_dev, status.st_ino
        with contextlib.suppress(OSError):  # the disk is full
            old.close()
    finally:
        handler.release()
    return True


def _is_regular(stream: Any) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):  # a stream of the project's own, or a closed one
        return False


def file_handlers() -> list[logging.FileHandler]:
    """Return the handlers of this process that write to files: of all loggers, and behind other handlers."""
    manager = logging.root.manager
    loggers = [logging.root, *(each for each in list(manager.loggerDict.values()) if _is_logger(each))]
    # The handlers of a QueueListener belong to no logger; `logging` knows those of the latest configuration.
    waiting = [reference() for reference in list(getattr(logging, "_handlerList", ()))]
    waiting += [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    found: dict[int, logging.Handler] = {}
    while waiting:
        handler = waiting.pop()
        if isinstance(handler, logging.Handler) and id(handler) not in found:
            found[id(handler)] = handler
            waiting.append(getattr(handler, "target", None))  # of a MemoryHandler
            waiting += getattr(getattr(handler, "listener", None), "handlers", ())  # of a QueueHandler
    return [each for each in found.values() if isinstance(each, logging.FileHandler)]


def _is_logger(each: object) -> bool:
    return isinstance(each, logging.Logger)
