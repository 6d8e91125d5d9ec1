"""The launcher of development: a small process that holds the sockets of a site, and starts it again.

It imports neither Django nor the project, so that there is nothing an edit could break. Its child is the
site, or, while that does not boot, a program that shows why.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
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
INTERRUPTED = 128 + signal.SIGINT
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
LIFETIME_OF_WORTH = 2.0
"""Seconds after which a site that ends by itself is started again at once; before, its end is shown."""

TIME_TO_BOOT = 3.0
"""Seconds after which a site that has not started is ended if a file changes: it may never start."""

TIME_TO_END = 1.0
"""Seconds in which it may do so by itself."""

PAUSE = 0.5
"""Seconds before what should not have failed is tried again."""

MOST_SPARES = 4
"""How many spares are tried until one is fit, each without what the ones before were not fit for."""


def become(
    *,
    command: list[str],
    options: list[str],
    directory: str,
    held: Iterable[Message] = (),
    debug: bool = True,
) -> NoReturn:
    """Execute the launcher in place of this process.

    ``command``: what to run, [path, ...] or ["-m", module, ...]; ``options``: those of the interpreter;
    ``held``: {"holder", "address", "inode", "descriptor"} of listening sockets; ``debug``: whether clients
    may see why the site does not start.
    """
    held = list(held)
    open_standard_streams(held)
    start = {"command": command, "options": options, "held": held, "debug": debug}
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


def open_standard_streams(held: list[Message]) -> None:
    """Have something in the places of input and output, lest the site's sockets are taken for them."""
    for each in held:
        if each["descriptor"] <= 2:
            low, each["descriptor"] = each["descriptor"], fcntl.fcntl(each["descriptor"], fcntl.F_DUPFD, 3)
            os.close(low)
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


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

    kind: str  # "site", "page", "spare", "watch"
    process: subprocess.Popen[bytes]
    parcels: Parcels
    began: int
    """When, as `time.time_ns`: what is saved later may not be what it has read."""
    is_warm: bool = False
    """Whether it was a spare before."""
    running: bool = False
    handles_signals: bool = False
    started: bool = False
    exiting: bool = False
    relaunching: bool = False
    ended: int | None = None
    report: Message | None = None
    hears: bool = True
    boot_ends: float = field(default_factory=lambda: time.monotonic() + TIME_TO_BOOT)


class Launcher:
    """What is held from one child to the next."""

    def __init__(self, start: Message) -> None:
        self.command: list[str] = start["command"]
        self.options: list[str] = start["options"]
        self.root = None  # of the project: here, if it is not where its script is
        if self.command[:1] != ["-m"]:
            self.root = os.path.dirname(os.path.realpath(self.command[0]))
        self.sockets: list[Message] = start["held"]
        self.connections: list[int] = []
        self.child: Child | None = None
        self.spare: Child | None = None
        self.watcher: Child | None = None
        self.killing_at: float | None = None
        self.library: Message | None = None
        self.unfit: list[str] = []
        self.spares_tried = 0
        self.has_given_up = False
        """Whether there can be no spare with these libraries."""
        self.watch: Message = {"files": [], "dirs": []}
        self.seen: dict[str, str] = {}
        self.repeats: dict[str, int] = {}
        self.changed: list[str] = []
        self.launches = 0
        self.shows_reasons: bool = start["debug"]
        self.since = 0
        self.is_leaving = False
        self.times_told = 0
        """How often it has been told to leave."""
        self.has_terminal = _has_terminal()
        self.terminal = _terminal_settings()
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
                self.say(traceback.format_exc().rstrip())
                self._close_connections()  # it may be for want of descriptors
                time.sleep(PAUSE)
            else:
                if status is not None:
                    return status

    def turn(self) -> int | None:
        """Wait for news, and act on them; return the status to leave with, if it is time to."""
        if self.child is None:  # its start has failed
            self.launch("site")
        poll = select.poll()
        poll.register(self._awake, select.POLLIN)
        children = (self.child, self.spare, self.watcher)
        speakers = {each.parcels.fileno(): each for each in children if each and each.hears}
        for descriptor in speakers:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(self.patience()):
            if descriptor in speakers:
                self.hear(speakers[descriptor])
            else:
                self.forward(self._awake.recv(4096))
        if self.spare is not None and self.spare.process.poll() is not None:
            was_fit = self.spare.started
            self.part_with_spare()
            if was_fit:  # somebody has killed it; one that did not live until then would do so again
                self.launch_spare()
        self.attend_to_boot()
        child = self.child
        if child is None or child.process.poll() is None:
            return None
        while child.hears and _is_readable(child.parcels):
            self.hear(child)
        child.parcels.close()
        self.child = self.killing_at = None
        self.part_with_watcher()
        return self.follow(child, child.process.returncode)

    def forward(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGCHLD:
                continue
            child = self.child
            if number in (signal.SIGINT, signal.SIGTERM) or (number == signal.SIGHUP and self.has_terminal):
                if self.is_leaving and child is not None and not child.handles_signals:
                    child.process.kill()  # a boot that does not end, and does not care
                self.is_leaving = True
                self.times_told += 1
                for each in (child, self.spare):
                    if each is not None:
                        each.process.send_signal(number)
            elif child is not None and child.kind == "page":  # the site, if there were one, had a use for it
                child.process.send_signal(signal.SIGUSR2)
            elif child is not None and child.handles_signals:  # else it would die of it
                child.process.send_signal(number)

    # A boot that does not end

    def patience(self) -> float | None:
        """Return the milliseconds to wait for news."""
        moment = self.killing_at
        child = self.child
        if moment is None and child is not None and child.kind == "site" and not child.started:
            moment = child.boot_ends if self.watcher is None else None
        return None if moment is None else max(0.0, moment - time.monotonic()) * 1000 + 1

    def attend_to_boot(self) -> None:
        """See to it that the site, if its start takes long, is started again when a file changes."""
        child, watcher, now = self.child, self.watcher, time.monotonic()
        if child is None or child.kind != "site" or child.started:
            self.part_with_watcher()
        elif self.killing_at is not None:
            if now >= self.killing_at:
                child.process.kill()
        elif watcher is None:
            if now >= child.boot_ends:
                self.watcher = self.spawn("watch", "error_page")
                self.show(self.watcher, None, [])
        elif watcher.process.poll() is not None:
            while watcher.hears and _is_readable(watcher.parcels):
                self.hear(watcher)
            has_seen = watcher.process.returncode == RELAUNCH
            self.part_with_watcher()
            child.boot_ends = now + TIME_TO_BOOT
            if has_seen:
                child.relaunching = True
                child.process.terminate()
                self.killing_at = now + TIME_TO_END

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
        child.running = True

    def on_sockets(self, child: Child, held: list[Message], descriptors: list[int]) -> None:
        """These are what the site listens on from now on."""
        child.handles_signals = True  # it has told this from a listener, and the handlers stand before
        if len(descriptors) != len(held):  # there were none free: better those of before than none
            for descriptor in descriptors:
                os.close(descriptor)
            return
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
        self._close_connections()  # it has copies, and needs no other that may take its place
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
            if library is not None and (self.library is None or self.library["doubt"] != library["doubt"]):
                self.say(f"There is no spare interpreter: {library['doubt']}.")
            self.library = library
            self.part_with_spare()
            return
        if self.library != library:
            if child.is_warm and self.library is not None and _is_another(self.library, library):
                # What it was prepared for was another project, in a way: it starts again without that.
                child.process.send_signal(signal.SIGUSR2)
            self.library = library
            self.spares_tried = 0
            self.unfit = []
            self.has_given_up = False
            self.part_with_spare()
        if self.spare is None and not self.has_given_up:
            self.launch_spare()

    def on_relaunching(self, child: Child, changed: list[str], _: list[int]) -> None:
        child.relaunching = True
        self.changed = changed

    def on_exiting(self, child: Child, _: bool, __: list[int]) -> None:
        child.exiting = True

    def on_changed(self, child: Child, changed: list[str], _: list[int]) -> None:
        self.changed = changed

    def on_seen(self, child: Child, seen: dict[str, str], _: list[int]) -> None:
        self.seen = seen  # and no earlier ones: a file may be again what it once was

    def on_repeats(self, child: Child, repeats: dict[str, int], _: list[int]) -> None:
        self.repeats = repeats

    def on_failed(self, child: Child, report: Message, _: list[int]) -> None:
        child.report = report
        if report["debug"] is not None:
            self.shows_reasons = report["debug"]

    def on_ended(self, child: Child, status: int, _: list[int]) -> None:
        child.ended = status

    def on_prepared(self, spare: Child, is_fit: bool, _: list[int]) -> None:
        spare.started = is_fit
        if is_fit:
            self.spares_tried = 0

    def on_unfit(self, spare: Child, names: list[str], _: list[int]) -> None:
        if not spare.started:
            self.part_with_spare()
            is_news = set(names) != set(self.unfit)
            self.unfit = names
            if is_news and self.spares_tried < MOST_SPARES:
                self.launch_spare()
            else:
                self.has_given_up = True

    def on_why(self, spare: Child, why: str | None, _: list[int]) -> None:
        if why is not None:
            self.has_given_up = True
            self.say(f"There is no spare interpreter: {why}.")

    def on_stale(self, child: Child, _: bool, __: list[int]) -> None:
        """It was a spare that is not fit any more: a new interpreter does it."""
        child.relaunching = True

    # Processes

    def follow(self, child: Child, status: int) -> int | None:
        """Decide what comes after a child that has ended; return the status to leave with, if any."""
        if child.ended is not None:  # more than what closing its output has added
            status = child.ended
        if self.is_leaving:
            if child.exiting:
                return status
            if self.times_told == 1 and status in (-signal.SIGTERM, -signal.SIGINT, INTERRUPTED):
                self.say("The site was told to exit while it was starting.")
                return 0
            return 0 if child.kind == "page" or child.relaunching or child.report is not None else status
        if child.relaunching or (child.kind == "page" and status == RELAUNCH):
            self.launch("site")
        elif child.kind == "page":
            if status == 0:
                return status
            if _age(child) < LIFETIME_OF_WORTH:
                time.sleep(PAUSE)
            self.launch("page", child.report)
        elif child.exiting and (child.started or child.report is None):
            return status
        elif child.is_warm and not child.running:  # it had died already
            self.launch("site")
        elif child.started and child.report is None and _age(child) > LIFETIME_OF_WORTH:
            self.say(f"The site ended by itself, {_how(status)}: it is started again.")
            self.launch("site")
        else:
            if child.report is not None and not child.report["is_told"]:
                self.say(child.report["text"])
            self.launch("page", child.report or self.report_of_end(child, status))
        return None

    def report_of_end(self, child: Child, status: int) -> Message:
        when = "shortly after it had started" if child.started else "before it served"
        title = f"The site ended by itself, {_how(status)}, {when}."
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
            spare.is_warm = True
            spare.started = False
            spare.began = time.time_ns()
            spare.boot_ends = time.monotonic() + TIME_TO_BOOT
            self.child = spare
        else:
            self.child = self.spawn(kind, "launched" if kind == "site" else "error_page")
        self.launches += kind == "site"
        self.restore_terminal()
        if kind == "page":
            self.show(self.child, report, [*(each["descriptor"] for each in self.sockets), *self.passed])
            self._close_connections()
            return
        self.since = self.child.began
        message = {
            "command": self.command,
            "run": True,
            "sockets": [{**each, "descriptor": None} for each in self.sockets],
            "told": {
                "since": self.since,
                "seen": self.seen,
                "repeats": self.repeats,
                "changed": self.changed,
                "launches": self.launches,
            },
        }
        with contextlib.suppress(OSError):  # it has died already, which will be seen
            self.child.parcels.send(
                message, [*(each["descriptor"] for each in self.sockets), *self.connections]
            )

    def show(self, page: Child, report: Message | None, sockets: list[int]) -> None:
        """Have the error page show a report, and watch; without one it only watches."""
        page.report = report
        resumed = [index for index, each in enumerate(self.sockets) if sockets and each.get("resumes")]
        message = {
            "report": report or {"title": "", "text": ""},
            "debug": self.shows_reasons,
            "root": self.root,
            "listening": len(sockets),
            "resumed": resumed,
            "watch": self.watch,
            "since": self.since,
            "seen": self.seen,
        }
        with contextlib.suppress(OSError):
            page.parcels.send(message, [*sockets, *(self.connections if report is not None else [])])

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
        _end(spare)

    def part_with_watcher(self) -> None:
        watcher, self.watcher = self.watcher, None
        _end(watcher)

    def spawn(self, kind: str, module: str) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            program = START.format(module=module, argument="int(sys.argv[2])")
            # An interpreter that is just starting would have a lot to say of Ctrl-C: each program lets it in.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                process = subprocess.Popen(
                    [sys.executable, *self.options, "-c", program, ROOT, str(theirs.fileno())],
                    pass_fds=[theirs.fileno(), *self.passed],
                    env={**os.environ, "RUN_MAIN": "true"},
                )
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return Child(kind, process, Parcels(ours), time.time_ns())

    def restore_terminal(self) -> None:
        """Have the terminal show again what is typed, if a debugger has ended before it could see to that."""
        with contextlib.suppress(OSError, termios.error):  # there is none, or it is another's now
            if self.terminal is not None and os.tcgetpgrp(0) == os.getpgrp():
                termios.tcsetattr(0, termios.TCSANOW, self.terminal)

    def _close_connections(self) -> None:
        for descriptor in self.connections:
            os.close(descriptor)
        self.connections = []

    def close(self) -> None:
        """Leave nothing behind."""
        self.part_with_spare()
        self.part_with_watcher()
        _end(self.child)
        self.restore_terminal()
        self._close_connections()
        for each in self.sockets:
            os.close(each["descriptor"])
            _unlink(each)


def _end(child: Child | None) -> None:
    if child is not None:
        child.parcels.close()
        child.process.kill()
        child.process.wait()


def _has_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


def _terminal_settings() -> list[Any] | None:
    try:
        return termios.tcgetattr(0)
    except (OSError, termios.error):  # there is none
        return None


def _is_another(before: Message, now: Message) -> bool:
    """Whether a boot has changed what imports go by in another way than the one before."""
    new_signs = any(set(now["signs"][what]) - set(before["signs"][what]) for what in now["signs"])
    return new_signs or bool(now["changed"] != before["changed"])


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
