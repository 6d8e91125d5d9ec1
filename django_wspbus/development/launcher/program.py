"""The launcher's loop: it starts the site, and starts it again when a file has changed, or the site ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, NoReturn

from ...process.messages import RELAUNCH, BrokenLink, Message, Received
from ...successor.notification import ServiceManager, status, watched
from ...successor.state import SocketState
from ...successor.values import read_values
from ...system.statuses import how_ended
from ...system.terminal import Terminal
from ..launch import HEALTH, INTERRUPTED, ErrorReport, Failure, Libraries, Start
from ..watching.files import WatchList
from .child import Child, Kind, reap_orphans, spawn
from .control import LauncherControl
from .ending import Ending
from .project import ProjectFiles, root_of
from .signals import Signals
from .sockets import LauncherSockets
from .spares import Spares
from .start import LauncherStart

SHORT_LIFETIME = 2.0
"""Seconds of service: the error page shows the end of a site that dies earlier; a later one is restarted."""

PAUSE_AFTER_FAILURE = 0.5
"""Seconds before the launcher goes on after an unexpected error, of its own or of the error page."""


def main(descriptor: int) -> NoReturn:
    """Run the launcher from the file of `entry.become`, and exit with the status of the site."""
    sys.pycache_prefix = os.environ.get("PYTHONPYCACHEPREFIX") or None  # this interpreter is isolated
    launcher = Launcher(LauncherStart.of(read_values(descriptor)))
    try:
        status = launcher.run()
    finally:
        launcher.close()
    if status < 0:
        status = 128 - status
    sys.exit(status)


class Launcher:
    """Starts the site, or the error page while the site does not boot."""

    def __init__(self, start: LauncherStart) -> None:
        self.invocation = start.invocation
        self.root = root_of(self.invocation)
        self.sockets = LauncherSockets(list(start.sockets))
        self.manager = ServiceManager.take()
        self.terminal = Terminal()
        self.spares = Spares(asdict(start.invocation), lambda: self.spawn("spare"), self.terminal.say)
        self.child: Child | None = None
        self.ending = Ending(self.terminal.say)
        self.start = Start()
        self.shows_reasons = start.debug
        self.hosts: list[str] = []
        """ALLOWED_HOSTS of the last site that was started with complete settings."""
        self.exit_requests = 0
        """The number of signals so far that asked for the exit."""
        self.signals = Signals(start.signals)
        self.files = ProjectFiles(self.root, self.signals.wake, self.terminal.say)
        self.control = LauncherControl(start, self.signals.wake, self.terminal.say)

    def spawn(self, kind: Kind) -> Child:
        return spawn(kind, self.invocation, self.sockets.passed)

    def run(self) -> int:
        """Serve until a signal asks for the exit; return the exit status."""
        self.launch_site()
        while True:
            try:
                status = self.turn()
            except Exception:  # an error in the launcher must not end the developer's session
                self.terminal.say(traceback.format_exc().rstrip())
                time.sleep(PAUSE_AFTER_FAILURE)
            else:
                if status is not None:
                    return status

    def turn(self) -> int | None:
        """Wait for an event and handle it; return the exit status, if the launcher is to exit."""
        if self.child is None:  # its start has failed
            self.launch_site()
        self.wait()
        self.control.attend(self)
        self.ending.attend(self.child)
        self.attend_changes()
        self.attend_boot()
        reap_orphans([each.process for each in self.children()])
        child = self.child
        if child is None or child.process.poll() is None:
            return None
        self.heed(child, child.unread())
        self.control.note_end_of_site()
        child.link.close()
        self.child = None
        return self.follow(child, child.process.returncode)

    def wait(self) -> None:
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        speakers = {each.link.fileno(): each for each in self.children() if each.hears}
        for descriptor, child in speakers.items():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if child.link.has_unsent else 0))
        moments = (None if self.child is None else self.child.boot_timeout(), self.ending.timeout())
        for descriptor, event in poll.poll(min((each for each in moments if each is not None), default=None)):
            if descriptor in speakers:
                self.attend(speakers[descriptor], event)
            else:
                self.forward(self.signals.take())

    def children(self) -> list[Child]:
        return [each for each in (self.child, self.spares.current) if each is not None]

    def attend(self, child: Child, event: int) -> None:
        """Send the messages that wait for a child, and handle those that it has sent."""
        if event & select.POLLOUT:
            with contextlib.suppress(OSError):  # it has died, as its status will say
                child.link.flush()
        if event & ~select.POLLOUT:
            self.heed(child, child.receive())

    def post(self, child: Child, message: Message, descriptors: Iterable[int] = ()) -> None:
        """Send a child a message, without waiting for it."""
        try:
            child.link.post(message, descriptors)
        except BrokenLink as error:
            self.terminal.say(str(error))
        except OSError:  # it has died, as its status will say
            pass

    # Signals

    def forward(self, numbers: bytes) -> None:
        for number in numbers:
            is_hangup = number == signal.SIGHUP and self.terminal.is_there
            if number in (signal.SIGINT, signal.SIGTERM) or is_hangup:
                self.request_exit(number)
            elif number != signal.SIGCHLD and (child := self.child) is not None:
                if child.kind == "page":  # a reload or a restart of the site that does not boot
                    self.post(child, {"retry": True})
                elif child.handles_signals:  # else the signal would kill it
                    child.process.send_signal(number)

    def request_exit(self, number: int) -> None:
        """Forward a signal that asks for the exit; a second one also kills a process that still boots."""
        self.exit_requests += 1
        self.manager.send("STOPPING=1", status("the launcher exits"))
        if self.child is not None:
            self.ending.expect(self.child)
        for each in (self.child, self.spares.current):
            if each is not None:
                if self.exit_requests > 1 and not each.handles_signals:  # it still boots, and may hang
                    each.process.kill()
                if number == signal.SIGINT and self.exit_requests == 1 and each.handles_signals:
                    self.post(each, {"interrupted": True})  # Ctrl-C has reached it already
                else:
                    each.process.send_signal(number)

    # Messages

    def heed(self, child: Child, messages: list[Received]) -> None:
        for message, descriptors in messages:
            if child is self.spares.current:
                self.spares.hear(message)
                continue
            for name, value in message.items():
                self.note(child, name, value, descriptors)
            if "watch" in message:
                self.files.learn(child, WatchList(**message["watch"]), message.get("since"))

    def note(self, child: Child, name: str, value: Any, descriptors: list[int]) -> None:
        """Handle one field of a message: see `development.launch`."""
        child.note(name, value)
        match name:
            case "hosts":
                self.hosts = value
            case "sockets":
                child.handles_signals = True  # its start listeners run, after the handlers are installed
                if (states := SocketState.received(value, descriptors)) is not None:
                    self.sockets.replace(states)
            case "started":
                self.shows_reasons = value
                self.note_started(child)
            case "library":
                libraries = None if value is None else Libraries(**value)
                self.spares.learn(libraries)
                if child.is_warm and libraries is not None and libraries.obstacle is not None:
                    self.post(child, {"again": True})  # this time from a new interpreter
            case "failed" if child.failure is not None and child.failure.debug is not None:
                self.shows_reasons = child.failure.debug
            case "taken" | "declined":
                self.control.note_taken(value, is_taken=name == "taken")
            case "waiting":
                self.control.note_waiting(value, descriptors)

    # Files

    def note_started(self, child: Child) -> None:
        child.note_started()
        self.start.has_served = True
        self.manager.send("READY=1", watched(0), status("development: the site serves"))
        self.control.boots.note_started()
        if child.has_reported_files and child.boot_ends is None:  # no longer the whole project
            self.files.watch(child)
        if self.files.pending:
            self.post(child, {"changed": sorted(self.files.pending)})
            self.files.pending.clear()

    def attend_changes(self) -> None:
        """End the error page, ask the site, or note files for the end of a boot, when files have changed."""
        child = self.child
        if not (reasons := self.files.reasons(child)) or child is None:
            return
        if child.kind == "page":
            self.post(child, {"retry": True})
        elif child.started:
            self.post(child, {"changed": reasons})
        else:
            self.files.pending.update(reasons)

    def attend_boot(self) -> None:
        """Give up a slow boot once a file has changed, as it may never end."""
        child = self.child
        if child is None or not child.is_slow():
            return
        self.heed(child, child.unread())  # it may serve by now
        if child.started:
            return
        if child.is_given_up:
            child.process.kill()
        elif self.files.pending:
            child.give_up()
        elif child.boot_ends is not None:  # the child has not reported its files, so watch the whole project
            child.boot_ends = None
            self.files.watch(child, child.began)

    def boot_again(self) -> None:
        """Start the site again, whatever it is doing."""
        child = self.child
        if child is None or child.relaunching:
            return
        if child.kind == "page":
            self.post(child, {"retry": True})
        elif child.started:
            self.post(child, {"again": True})
        else:
            child.give_up()

    # What comes next

    def follow(self, child: Child, status: int) -> int | None:
        """Start the process that follows one that has ended; return the exit status, if none follows."""
        if child.ended is not None:  # the interpreter changes the status if it cannot flush its output
            status = child.ended
        if self.exit_requests:
            return self.exit_status(child, status)
        if child.relaunching or self.files.pending or (child.kind == "page" and status == RELAUNCH):
            self.launch_site()
        elif child.kind == "page":
            if status == 0:
                return status
            if child.age < SHORT_LIFETIME:
                time.sleep(PAUSE_AFTER_FAILURE)
            self.launch_page(child.failure or Failure("", ""))
        elif child.exiting and (child.started or child.failure is None):
            return status
        elif child.is_warm and not child.running:  # the spare had died before
            self.launch_site()
        elif child.started and child.failure is None and child.age > SHORT_LIFETIME:
            self.terminal.say(f"The site {how_ended(status)}; restarting it.")
            self.launch_site()
        else:
            if child.failure is not None and not child.failure.is_shown:
                self.terminal.say(child.failure.text)
            self.launch_page(child.failure or self.failure_of_end(child, status))
        return None

    def exit_status(self, child: Child, status: int) -> int:
        if (
            not child.exiting
            and child.kind == "site"
            and self.exit_requests == 1
            and status in (-signal.SIGTERM, -signal.SIGINT, INTERRUPTED)
        ):
            self.terminal.say("The site was told to exit while it was starting.")
            return 0
        return child.exit_status(status)

    def failure_of_end(self, child: Child, status: int) -> Failure:
        when = "shortly after it started" if child.started else "before it served"
        title = f"The site {how_ended(status)} {when}."
        self.terminal.say(title)
        return Failure(title, f"{title}\nIts output in the terminal may tell why.")

    def launch_site(self) -> None:
        """Start the site, from the spare if there is one."""
        self.terminal.restore()
        self.files.begin_boot()
        child = self.child = self.spares.take() or self.spawn("site")
        self.control.boots.begin(child.process.pid)
        self.start.began = child.began
        self.start.launches += 1
        message = {
            "invocation": asdict(self.invocation),
            "sockets": [asdict(each) for each in self.sockets.states],
            "start": asdict(self.start),
        }
        self.post(child, message, self.sockets.descriptors)

    def launch_page(self, failure: Failure) -> None:
        """Start the error page."""
        self.terminal.restore()
        page = self.child = self.spawn("page")
        page.failure = failure
        self.control.boots.note_failed(failure.title, failure.text)
        page.booted = page.began
        report = ErrorReport(
            failure.title,
            failure.text,
            is_public=self.shows_reasons,
            root=self.root,
            hosts=[*self.hosts, *self.sockets.hosts],
            probed=[index for index, each in enumerate(self.sockets.states) if each.holder == HEALTH],
        )
        self.post(page, asdict(report), [*self.sockets.descriptors, *self.sockets.passed])
        self.files.learn_from_report(page, failure.text, self.start.began)

    def close(self) -> None:
        """End all processes, and close all descriptors."""
        self.spares.end()
        self.files.close()
        if self.child is not None:
            self.child.end()
        self.terminal.restore()
        self.sockets.close()
        self.control.close()
