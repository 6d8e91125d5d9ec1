"""The program of the site under the launcher: it runs the command, and reports how that ends.

A spare is the same program. It imports libraries first, and waits for the message to run.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import io
import os
import signal
import socket
import sys
from dataclasses import asdict
from types import FrameType
from typing import Any

from ..process.messages import RELAUNCH, Link, Message
from ..project import libraries
from ..successor import program
from ..successor.invocation import Invocation
from ..successor.state import SiteState, SocketState
from . import spare
from .launch import INTERRUPTED, LAUNCHER_TIMEOUT, Failure, Launch, current
from .reports import failure_of
from .unfinished import debug_of
from .watching.files import WatchList

MOST_OF_A_TITLE = 1000
MOST_OF_A_REPORT = 200_000
"""Characters of an error that are sent; its text may have any length."""

status_at_once: list[int] = []
"""The exit status, if the process skips the finalization of the interpreter, which is slower than a boot."""


def end_at_once() -> None:
    """Write out the buffers of files and end the process, if `status_at_once` holds a status."""
    if status_at_once:
        for each in (sys.stdout, sys.stderr, *open_files()):
            with contextlib.suppress(Exception):  # closed; a full disk
                each.flush()
        os._exit(status_at_once[0])


def open_files() -> list[Any]:
    """Return the open files that may have unwritten data, in a few milliseconds."""
    kinds: list[type] = [io.TextIOWrapper, io.BufferedWriter]
    for kind in kinds:
        kinds += kind.__subclasses__()
    files = frozenset(kinds)
    gc.unfreeze()  # get_objects() does not list the frozen files of settings and apps
    # type() instead of isinstance(), which would load lazy objects.
    try:
        return [each for each in gc.get_objects() if type(each) in files]
    except TypeError:  # the class of a class has no hash
        return [each for each in gc.get_objects() if issubclass(type(each), tuple(kinds))]


def main(descriptor: int) -> None:
    atexit.register(end_at_once)  # as the first one, so that it runs last
    del sys.path[-1]  # the launcher added it for the import of this module
    os.set_inheritable(descriptor, False)
    link = Link(socket.socket(fileno=descriptor), "The launcher")
    warm: spare.Spare | None = None
    while (messages := link.receive(None)) is not None:
        for message, descriptors in messages:
            command = set_up(Invocation(**message["invocation"]))
            if "prepare" in message:
                interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the site
                warm = spare.Spare(**message["prepare"])
                with contextlib.suppress(OSError):  # the launcher has ended meanwhile
                    link.send(warm.prepare())
                continue
            if warm is not None:
                signal.signal(signal.SIGINT, interrupt)
            if warm is not None and not warm.is_fit():
                link.send({"stale": True})
                return
            with contextlib.suppress(OSError):
                link.send({"running": True})
            end_with(link)
            run(link, command, message, descriptors)
            return


def end_with(link: Link) -> None:
    """Make the kernel end this process with the launcher, until `plugins.relaunch` takes care of that."""
    if hasattr(fcntl, "F_SETSIG"):
        descriptor = link.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | fcntl.FASYNC)


def set_up(invocation: Invocation) -> list[str]:
    """Prepare the interpreter as if the command had been typed; return the command."""
    sys.orig_argv[:] = invocation.words
    program.set_up(invocation.command)
    return invocation.command


def run(link: Link, command: list[str], message: Message, descriptors: list[int]) -> None:
    """Run the command, and exit with its status; report a failure to the launcher first."""
    sockets = SocketState.received(message["sockets"], descriptors) or []
    current.append(Launch(link=link, **message["start"]))
    os.environ.update(SiteState(sockets=sockets).as_environment())
    if "LISTEN_FDS" in os.environ:  # systemd has passed them to the launcher
        os.environ["LISTEN_PID"] = str(os.getpid())
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt_once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        program.execute(command)
    except BaseException as error:
        status = report_failure(link, error)
    else:
        status = 0
    with contextlib.suppress(OSError):
        link.send({"ended": status}, timeout=LAUNCHER_TIMEOUT)
    if status == RELAUNCH:
        status_at_once.append(status)
    raise SystemExit(status)


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt once: the terminal sends SIGINT, and the launcher sends it again."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def report_failure(link: Link, error: BaseException) -> int:
    """Report a failure to the launcher, and print it if the command has not; return the exit status."""
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, int | None):
            write(str(error.code))
        if status in (0, RELAUNCH):
            return status
        failure = failure_of(error.__context__ or error)
    else:
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        failure = failure_of(error)
        if status != INTERRUPTED:
            write(failure.text)
    failure = Failure(
        failure.title[:MOST_OF_A_TITLE],
        failure.text[-MOST_OF_A_REPORT:],
        debug=debug(error),
        is_shown=status != INTERRUPTED,
    )
    watched = WatchList(libraries.project_files(), library_folders())
    with contextlib.suppress(OSError):
        message = {"failed": asdict(failure), "watch": asdict(watched), **hosts()}
        link.send(message, timeout=LAUNCHER_TIMEOUT)
    return status


def write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be broken, closed or None
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def debug(error: BaseException | None = None) -> bool | None:
    """Return whether clients may see errors; None if the settings failed before DEBUG was known."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is None or not settings.configured:
        return debug_of(error)
    return bool(settings.DEBUG)


def hosts() -> Message:
    """Return {"hosts": ALLOWED_HOSTS}, or {} if the settings are not complete."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is None or not settings.configured:
        return {}
    return {"hosts": [str(host) for host in settings.ALLOWED_HOSTS]}


def library_folders() -> list[list[str]]:
    """Return the folders that change when a package is installed, each with a glob."""
    return [[folder, "*"] for folder in libraries.folders() if os.path.isdir(folder)]
