"""The launcher of development: a small process that holds the sockets of a site, and starts it again.

It imports neither Django nor the project, so that there is nothing an edit could break. Its child is the
site, or, while that does not boot, a program that shows why.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .parcels import Message, Parcels

ROOT = str(Path(__file__).parent.parent)
# The folder of this package comes last: nothing in it is to hide a module of the standard library.
START = (
    "import sys; sys.path[:] = [path for path in sys.path if path] + [sys.argv[1]]; "
    "from django_wspbus.{module} import main; main({argument})"
)
SYSTEMD_FIRST = 3
RELAUNCH = 3
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
LIFETIME_OF_WORTH = 2.0
"""Seconds after which a site that ends by itself is started again at once; before, its end is shown."""

MOST_SPARES = 4
"""How many spares are tried until one is fit, each without what the ones before were not fit for."""


def become(
    *, command: list[str], options: list[str], directory: str, held: Iterable[Message] = ()
) -> NoReturn:
    """Execute the launcher in place of this process.

    ``command``: what to run, [path, ...] or ["-m", module, ...]; ``options``: those of the interpreter;
    ``held``: {"holder", "address", "inode", "descriptor"} of listening sockets.
    """
    held = list(held)
    start = {"command": command, "options": options, "held": held}
    for each in held:
        os.set_inheritable(each["descriptor"], True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None
            stream.flush()
    program = START.format(module="launcher", argument="sys.argv[2]")
    os.chdir(directory)
    arguments = [sys.executable, "-I", "-S", "-c", program, ROOT, json.dumps(start)]
    os.execve(sys.executable, arguments, first_environment())


def first_environment() -> dict[bytes, bytes] | dict[str, str]:
    """Return the environment that this process was started with, where the system tells.

    What the project has set since, it sets again, and may set to something else after an edit; it would be
    too late if it only sets what is not there.
    """
    with contextlib.suppress(OSError):
        pairs = [entry.partition(b"=") for entry in Path("/proc/self/environ").read_bytes().split(b"\0")]
        if environment := {name: value for name, is_pair, value in pairs if name and is_pair}:
            return environment
    return dict(os.environ)


def main(start: str) -> NoReturn:
    launcher = Launcher(json.loads(start))
    try:
        status = launcher.run()
    finally:
        launcher.close()
    if status < 0:
        status = 128 - status
    sys.exit(status)


@dataclass(slots=True, eq=False)
class Child:
    """A process that the launcher has started, and what it has told."""

    kind: str  # "site", "page", "spare"
    process: subprocess.Popen[bytes]
    parcels: Parcels
    began: int
    """When, as `time.time_ns`: what is saved later may not be what it has read."""
    started: bool = False
    relaunching: bool = False
    ended: int | None = None
    report: Message | None = None
    hears: bool = True


class Launcher:
    """What is held from one child to the next."""

    def __init__(self, start: Message) -> None:
        self.command: list[str] = start["command"]
        self.options: list[str] = start["options"]
        self.sockets: list[Message] = start["held"]
        self.connections: list[int] = []
        self.child: Child | None = None
        self.spare: Child | None = None
        self.library: Message | None = None
        self.unfit: list[str] = []
        self.spares_tried = 0
        self.watch: Message = {"files": [], "dirs": []}
        self.seen: dict[str, str] = {}
        self.repeats: dict[str, int] = {}
        self.changed: list[str] = []
        self.launches = 0
        self.shows_reasons = True
        self.is_leaving = False
        self.passed = self._passed_by_systemd()
        for each in self.sockets:
            os.set_inheritable(each["descriptor"], False)
        self._awake, self._wake = socket.socketpair()
        for sock in (self._awake, self._wake):
            sock.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for name in (*FORWARDED, "SIGCHLD"):
            signal.signal(getattr(signal, name), lambda *_: None)

    def _passed_by_systemd(self) -> list[int]:
        if os.environ.get("LISTEN_PID") != str(os.getpid()):
            return []
        return list(range(SYSTEMD_FIRST, SYSTEMD_FIRST + int(os.environ.get("LISTEN_FDS", "0"))))

    def run(self) -> int:
        """Serve until told to stop; return the status to leave with."""
        self.launch("site")
        while True:
            try:
                status = self.turn()
            except Exception:  # whatever it is, the developer has work to do
                traceback.print_exc()
                time.sleep(0.5)
            else:
                if status is not None:
                    return status

    def turn(self) -> int | None:
        """Wait for news, and act on them; return the status to leave with, if it is time to."""
        if self.child is None:  # its start has failed
            self.launch("site")
        poll = select.poll()
        poll.register(self._awake, select.POLLIN)
        speakers = {each.parcels.fileno(): each for each in (self.child, self.spare) if each and each.hears}
        for descriptor in speakers:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll():
            if descriptor in speakers:
                self.hear(speakers[descriptor])
            else:
                self.forward(self._awake.recv(4096))
        if self.spare is not None and self.spare.process.poll() is not None:
            was_prepared = self.spare.started
            self.part_with_spare()
            if was_prepared:  # somebody has killed it; one that did not live until then would do so again
                self.launch_spare()
        child = self.child
        if child is None or child.process.poll() is None:
            return None
        while child.hears and _is_readable(child.parcels):
            self.hear(child)
        child.parcels.close()
        self.child = None
        return self.follow(child, child.process.returncode)

    def forward(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGCHLD:
                continue
            if number in (signal.SIGINT, signal.SIGTERM):
                self.is_leaving = True
            for each in (self.child, self.spare):
                if each is not None and (each.kind != "spare" or self.is_leaving):
                    each.process.send_signal(number)

    # News

    def hear(self, child: Child) -> None:
        messages = child.parcels.receive()
        if messages is None:
            child.hears = False
            return
        for message, descriptors in messages:
            for name, value in message.items():
                getattr(self, f"on_{name}")(child, value, descriptors)

    def on_running(self, child: Child, _: Any, __: list[int]) -> None:
        """It has its copies of the connections."""
        self._close_connections()

    def on_sockets(self, child: Child, held: list[Message], descriptors: list[int]) -> None:
        """These are what the site listens on from now on."""
        kept = {(each["address"], *(each["inode"] or ())) for each in held}
        for each in self.sockets:
            os.close(each["descriptor"])
            if (each["address"], *(each["inode"] or ())) not in kept:
                _unlink(each)
        self.sockets = [
            {**each, "descriptor": descriptor} for each, descriptor in zip(held, descriptors, strict=True)
        ]

    def on_idle(self, child: Child, _: bool, descriptors: list[int]) -> None:
        self.connections += descriptors

    def on_started(self, child: Child, debug: bool, _: list[int]) -> None:
        child.started = True
        self.shows_reasons = debug
        self.changed = []

    def on_watch(self, child: Child, watch: Message, _: list[int]) -> None:
        if child.started:
            self.watch = watch
        else:  # it has not come far: what the one before knew may be what mends it
            files = {*self.watch["files"], *watch["files"]}
            dirs = {(folder, glob) for folder, glob in (*self.watch["dirs"], *watch["dirs"])}
            self.watch = {"files": sorted(files), "dirs": sorted(dirs)}

    def on_library(self, child: Child, library: Message | None, _: list[int]) -> None:
        """This is what a spare is to import; None if there is to be none."""
        if library is None or library["doubt"] is not None:
            self.library = None
            self.part_with_spare()
            return
        if self.library != library:
            self.library = library
            self.spares_tried = 0
            self.unfit = []
            self.part_with_spare()
        if self.spare is None:
            self.launch_spare()

    def on_relaunching(self, child: Child, changed: list[str], _: list[int]) -> None:
        child.relaunching = True
        self.changed = changed

    def on_changed(self, child: Child, changed: list[str], _: list[int]) -> None:
        self.changed = changed

    def on_seen(self, child: Child, seen: dict[str, str], _: list[int]) -> None:
        self.seen = seen

    def on_repeats(self, child: Child, repeats: dict[str, int], _: list[int]) -> None:
        self.repeats = repeats

    def on_failed(self, child: Child, report: Message, _: list[int]) -> None:
        child.report = report

    def on_ended(self, child: Child, status: int, _: list[int]) -> None:
        child.ended = status

    def on_prepared(self, spare: Child, is_fit: bool, _: list[int]) -> None:
        spare.started = is_fit

    def on_unfit(self, spare: Child, names: list[str], _: list[int]) -> None:
        if not spare.started:
            self.part_with_spare()
            is_news = set(names) != set(self.unfit)
            self.unfit = names
            if is_news and self.spares_tried < MOST_SPARES:
                self.launch_spare()

    def on_stale(self, child: Child, _: bool, __: list[int]) -> None:
        """It was a spare that is not fit any more: a new interpreter does it."""
        child.relaunching = True

    # Processes

    def follow(self, child: Child, status: int) -> int | None:
        """Decide what comes after a child that has ended; return the status to leave with, if any."""
        if self.is_leaving:
            return status
        if child.relaunching or (child.kind == "page" and status == RELAUNCH):
            self.launch("site")
        elif child.kind == "page":
            if status == 0:
                return status
            self.launch("page", child.report)
        elif child.started and child.report is None and child.ended is not None:
            return child.ended  # it was told to exit
        elif child.started and child.report is None and _age(child) > LIFETIME_OF_WORTH:
            self.say(f"The site ended by itself, {_how(status)}: it is started again.")
            self.launch("site")
        else:
            self.launch("page", child.report or self.report_of_end(status))
        return None

    def report_of_end(self, status: int) -> Message:
        title = f"The site ended by itself, {_how(status)}, before it served."
        self.say(title)
        return {"title": title, "text": f"{title}\nIts output in the terminal may tell why."}

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def launch(self, kind: str, report: Message | None = None) -> None:
        """Start the site, or the page that shows why it does not start."""
        spare = self.spare if kind == "site" else None
        if spare is not None and spare.started:
            self.spare = None
            spare.kind = "site"
            spare.started = False
            spare.began = time.time_ns()
            self.child = spare
        else:
            self.child = self.spawn(kind, "launched" if kind == "site" else "error_page")
        self.launches += kind == "site"
        sockets = [*(each["descriptor"] for each in self.sockets)]
        if kind == "site":
            message = {
                "command": self.command,
                "run": True,
                "sockets": [{**each, "descriptor": None} for each in self.sockets],
                "told": {
                    "since": self.child.began,
                    "seen": self.seen,
                    "repeats": self.repeats,
                    "changed": self.changed,
                    "launches": self.launches,
                },
            }
        else:
            self.child.report = report
            sockets += self.passed
            message = {
                "report": report,
                "debug": self.shows_reasons,
                "listening": len(sockets),
                "watch": self.watch,
                "since": self.since,
                "seen": self.seen,
            }
        with contextlib.suppress(OSError):  # it has died already, which will be seen
            self.child.parcels.send(message, [*sockets, *self.connections])
        if kind == "site":
            self.since = self.child.began
        else:
            self._close_connections()

    since = 0

    def launch_spare(self) -> None:
        """Start an interpreter that prepares to be the next site."""
        self.spares_tried += 1
        self.spare = self.spawn("spare", "launched")
        with contextlib.suppress(OSError):
            self.spare.parcels.send(
                {"command": self.command, "prepare": {**(self.library or {}), "unfit": self.unfit}}
            )

    def part_with_spare(self) -> None:
        spare, self.spare = self.spare, None
        if spare is not None:
            spare.parcels.close()
            spare.process.kill()
            spare.process.wait()

    def spawn(self, kind: str, module: str) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            program = START.format(module=module, argument="int(sys.argv[2])")
            process = subprocess.Popen(
                [sys.executable, *self.options, "-c", program, ROOT, str(theirs.fileno())],
                pass_fds=[theirs.fileno(), *self.passed],
                env={**os.environ, "RUN_MAIN": "true"},
            )
        return Child(kind, process, Parcels(ours), time.time_ns())

    def _close_connections(self) -> None:
        for descriptor in self.connections:
            os.close(descriptor)
        self.connections = []

    def close(self) -> None:
        """Leave nothing behind."""
        self.part_with_spare()
        if self.child is not None:
            self.child.process.kill()
            self.child.process.wait()
        self._close_connections()
        for each in self.sockets:
            os.close(each["descriptor"])
            _unlink(each)


def _is_readable(parcels: Parcels) -> bool:
    poll = select.poll()
    poll.register(parcels, select.POLLIN)
    return bool(poll.poll(0))


def _unlink(held: Message) -> None:
    """Remove a Unix socket's file, if it is still the one that was bound."""
    if held["inode"] is not None:
        path = held["address"].removeprefix("unix:")
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if [status.st_dev, status.st_ino] == list(held["inode"]):
                os.unlink(path)


def _age(child: Child) -> float:
    return (time.time_ns() - child.began) / 1e9


def _how(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
