"""The site's end of the launcher: it lends the site its sockets, and starts it again on a restart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import NoReturn

from ..development import spare
from ..development.launch import CHANGED, WATCH, Launch
from ..development.watching.files import WatchList
from ..process.messages import RELAUNCH, BrokenLink, Message
from ..process.switchboard import Switchboard
from ..project import libraries
from ..successor.state import HeldSocket
from ..wspbus import Bus
from ..wspbus.plugin import Plugin

TIME_FOR_THREADS = 1.0
"""Seconds that threads of the project have to end, once all listeners have run."""


class Relaunch(Plugin):
    """Lends the site the launcher's sockets, and has a restart end this process, to be started again.

    ``held()``: the sockets that the site has bound; ``part()`` is called once they are not the launcher's.
    ``ask_workers(message)`` sends a message to the workers in other processes, and returns their number.
    ``preload``: PRELOAD of AUTORELOAD, None if there is to be no spare. ``debug``, ``hosts``: DEBUG and
    ALLOWED_HOSTS, by which the error page goes. ``stop_timeout``: seconds after which the launcher ends this
    process if it was told to exit.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        launch: Launch,
        switchboard: Switchboard,
        *,
        held: Callable[[], list[HeldSocket]],
        part: Callable[[], None],
        ask_workers: Callable[[Message], int],
        preload: Sequence[str] | None,
        debug: bool,
        stop_timeout: float,
        hosts: Sequence[str] = (),
    ) -> None:
        super().__init__(bus)
        self.launch = launch
        self.switchboard = switchboard
        self.held = held
        self.part = part
        self.ask_workers = ask_workers
        self.preload = preload
        self.debug = debug
        self.stop_timeout = stop_timeout
        self.hosts = list(map(str, hosts))
        self._serves = False

    def tell(self, message: Message, descriptors: Iterable[int] = ()) -> None:
        """Send a message to the launcher, without waiting for it."""
        try:
            self.switchboard.post(self.launch.link, message, descriptors)
        except (BrokenLink, ValueError) as error:  # ValueError: too large
            self.bus.log(f"A message to the launcher was not sent: {error}", level=30)
        except OSError:  # it has ended, and this process is about to
            pass

    # Sockets

    def lend(self) -> None:
        """Give the launcher all sockets: whatever fails from now on, they stay."""
        held = self.held()
        message = {"sockets": [asdict(each) for each in held], "stop_timeout": self.stop_timeout}
        self.tell(message, [each.descriptor for each in held])
        self._watch_launcher()

    def _watch_launcher(self) -> None:
        descriptor = self.launch.link.fileno()
        # The kernel would send a signal besides (see `launched`), and the second ends a site at once.
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~fcntl.FASYNC)
        self.switchboard.watch(descriptor, self._hear_launcher, self.launch.link)

    def _hear_launcher(self) -> None:
        """Start again, if the launcher says so, or ask about changed files; exit, if it has ended."""
        messages = self.launch.link.receive()
        if messages is not None:
            for message, _ in messages:
                if "changed" in message:
                    self.ask_about(message["changed"])
                else:
                    self.bus.defer(self.bus.restart)
            return
        self.switchboard.forget(self.launch.link.fileno())
        self.bus.log("The launcher has ended, and so does the site.")
        self.part()
        self.bus.watchdog.expect_exit()
        self.bus.defer(self.bus.exit)

    def start(self) -> None:
        self.bus.defer(self.tell_started)  # if it is: all start listeners run, also after one that fails

    start.priority = 100  # type: ignore[attr-defined]

    def tell_started(self) -> None:
        """Tell that this process serves, and what is of use only when it has ended."""
        if self.bus.state is not self.bus.states.STARTED:
            return
        self._serves = True
        self.tell({"hosts": self.hosts})
        self.tell({"started": self.debug})
        library = None if self.preload is None else asdict(spare.describe(self.preload))
        self.tell({"library": library})

    # Files

    def tell_watched(self, watched: Message, since: int | None) -> None:
        """Tell the launcher what a worker was made of, or has imported ``since`` a `time.time_ns`."""
        if since is None:
            watched = asdict(WatchList(libraries.project_files()) | WatchList(**watched))
        self.tell({"watch": watched, "since": since})

    def ask_about(self, changed: Sequence[str]) -> None:
        """Ask all workers about changed files; one that does not take care of them calls for `autoreload`."""
        asked = self.ask_workers({"changed": list(changed)}) + len(self.bus.publish(CHANGED, changed))
        if not asked:
            self.autoreload(changed)

    def autoreload(self, changed: Sequence[str] = ()) -> None:
        """Start the site again, as files have changed."""
        if not self.bus.exit_asked:
            self.bus.log(f"Changed: {', '.join(changed)}. Restarting.")
            self.bus.defer(self.bus.restart)  # the stop listeners are for the main thread

    def stop(self) -> None:
        if self.bus.exit_asked and not self.bus.execv:
            self.tell({"exiting": True})
            if self._serves:
                self.part()
        elif self.bus.execv:
            self.tell({"relaunching": True})
        self._serves = False

    stop.priority = 0  # type: ignore[attr-defined]

    def exit(self) -> None:
        """See to it that threads of the project that do not end do not hold up the next start for long."""
        if self.bus.execv:
            timer = threading.Timer(TIME_FOR_THREADS, self._leave_them)
            timer.daemon = True
            timer.start()

    exit.priority = 100  # type: ignore[attr-defined]

    def _leave_them(self) -> None:
        here = (threading.main_thread(), threading.current_thread())
        names = [each.name for each in threading.enumerate() if each not in here and not each.daemon]
        with contextlib.suppress(Exception):  # closed
            if names:  # else a debugger or an atexit function takes its time
                sys.stderr.write(f"Not waited for, threads that do not end: {', '.join(names)}.\n")
            sys.stdout.flush()
            sys.stderr.flush()
            self.launch.link.finish(TIME_FOR_THREADS)
        os._exit(RELAUNCH)

    def replace(self) -> NoReturn:
        """End this process with the status by which the launcher starts another."""
        raise SystemExit(RELAUNCH)

    def subscribe(self) -> None:
        super().subscribe()
        self.bus.subscribe("start", self.lend, 21, role=self.role)
        self.bus.subscribe(WATCH, self.tell_watched, role=self.role)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe("start", self.lend)
        self.bus.unsubscribe(WATCH, self.tell_watched)
