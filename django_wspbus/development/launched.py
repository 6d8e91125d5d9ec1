"""The program of the launcher's child: it runs the developer's command, and tells what became of it.

A spare is this program, too: it has been told to prepare before it is told to run.
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
from ..successor.state import HeldSocket, SiteState
from . import spare
from .launch import INTERRUPTED, TIME_TO_TELL, Launch, current
from .reports import report_of
from .unfinished import debug_of
from .watching.files import WatchList

MOST_OF_A_TITLE = 1000
MOST_OF_A_REPORT = 200_000
"""Characters of the error that are shown; an error may hold a text of any length."""

leave_at_once: list[int] = []
"""The status to leave with before the interpreter takes itself to pieces, which takes longer than a start."""


def leave() -> None:
    """End the process after all other atexit functions have run; lose nothing that files have buffered."""
    if leave_at_once:
        for each in (sys.stdout, sys.stderr, *open_files()):
            with contextlib.suppress(Exception):  # closed; a full disk
                each.flush()
        os._exit(leave_at_once[0])


def open_files() -> list[Any]:
    """Return the files that may hold what is not written yet, in a few milliseconds."""
    kinds: list[type] = [io.TextIOWrapper, io.BufferedWriter]
    for kind in kinds:
        kinds += kind.__subclasses__()
    files = frozenset(kinds)
    gc.unfreeze()  # the command freezes what settings and apps have opened, which hides it from get_objects()
    # type() and not isinstance(), which would wake up lazy objects.
    try:
        return [each for each in gc.get_objects() if type(each) in files]
    except TypeError:  # the class of a class has no hash
        return [each for each in gc.get_objects() if issubclass(type(each), tuple(kinds))]


def main(descriptor: int) -> None:
    atexit.register(leave)  # before anybody else does, and so run after them
    del sys.path[-1]  # by which the launcher has this package found
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
    """Tell the kernel, where it can, to end this process with the launcher, until `plugins.relaunch` does."""
    if hasattr(fcntl, "F_SETSIG"):
        descriptor = link.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | fcntl.FASYNC)


def set_up(invocation: Invocation) -> list[str]:
    """Prepare the interpreter as if the command had been typed; return that command."""
    sys.orig_argv[:] = invocation.words
    program.set_up(invocation.command)
    return invocation.command


def run(link: Link, command: list[str], message: Message, descriptors: list[int]) -> None:
    """Run the command, and leave as it does; but first tell the launcher, if it has failed."""
    held = HeldSocket.received(message["sockets"], descriptors) or []
    current.append(Launch(link=link, **message["start"]))
    os.environ.update(SiteState(sockets=held).as_environment())
    if "LISTEN_FDS" in os.environ:  # systemd has passed them to the launcher
        os.environ["LISTEN_PID"] = str(os.getpid())
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt_once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        program.execute(command)
    except BaseException as error:
        status = tell(link, error)
    else:
        status = 0
    with contextlib.suppress(OSError):
        link.send({"ended": status}, timeout=TIME_TO_TELL)
    if status == RELAUNCH:
        leave_at_once.append(status)
    raise SystemExit(status)


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """Do what Python does at Ctrl-C, but only once: the terminal tells of it, and then the launcher, too."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def tell(link: Link, error: BaseException) -> int:
    """Tell the launcher why the command failed, and print it unless that is done; return the status."""
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, int | None):
            write(str(error.code))
        if status in (0, RELAUNCH):
            return status
        report = report_of(error.__context__ or error)
    else:
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        report = report_of(error)
        if status != INTERRUPTED:
            write(report["text"])
    # Whether somebody has pressed Ctrl-C before the handlers stood, the launcher knows.
    report = {
        "title": report["title"][:MOST_OF_A_TITLE],
        "text": report["text"][-MOST_OF_A_REPORT:],
        "debug": debug(error),
        "is_told": status != INTERRUPTED,
    }
    watched = WatchList(libraries.project_files(), library_folders())
    with contextlib.suppress(OSError):
        link.send({"failed": report, "watch": asdict(watched), **hosts()}, timeout=TIME_TO_TELL)
    return status


def write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody reads it; closed; none at all
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def debug(error: BaseException | None = None) -> bool | None:
    """Whether clients may see what is wrong; None if the settings failed before that was known."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is None or not settings.configured:
        return debug_of(error)
    return bool(settings.DEBUG)


def hosts() -> Message:
    """Return {"hosts": those that clients may ask for}, nothing if the settings are not complete."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is None or not settings.configured:
        return {}
    return {"hosts": [str(host) for host in settings.ALLOWED_HOSTS]}


def library_folders() -> list[list[str]]:
    """Return the folders that change when a package is installed, each with a pattern for what is in it."""
    return [[folder, "*"] for folder in libraries.folders() if os.path.isdir(folder)]
