"""The plugin of the site process that works with the launcher, which holds its sockets and restarts it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import NoReturn

from ..control.calls import has_ended
from ..control.protocol import Request
from ..development import spare
from ..development.launch import CHANGED, WATCH, ClientRequest, Launch
from ..development.watching.files import WatchList
from ..process.messages import RELAUNCH, BrokenLink, Message
from ..process.switchboard import Switchboard
from ..process.worker_orders import Changed, Order
from ..project import libraries
from ..successor.state import SocketState, WaitingClient
from ..wspbus import Bus
from ..wspbus.ending import other_threads
from ..wspbus.plugin import Plugin

TIME_FOR_THREADS = 1.0
"""Seconds that threads of the project have to end, once all listeners have run."""

LAST = 10_000
"""The priority of a listener after all others: what an earlier one defers runs before the bus is STARTED."""


class Relaunch(Plugin):
    """Lends the sockets of the site to the launcher, and ends this process at a restart.

    ``sockets()`` returns the sockets that the site has bound; ``take_back()`` is called when the launcher
    serves no client on them any more. ``order_workers(order)`` gives an order to the workers in other
    processes and returns their number. ``preload``: PRELOAD of AUTORELOAD; None: there is no spare.
    ``debug``, ``hosts``: DEBUG and ALLOWED_HOSTS, which the error page obeys. ``stop_timeout``: seconds
    after which the launcher ends this process if it has to exit. ``control(request, connection)``
    answers a client of the control socket; ``waiting()`` returns, once, those clients that wait for a boot.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        launch: Launch,
        switchboard: Switchboard,
        *,
        sockets: Callable[[], list[SocketState]],
        take_back: Callable[[], None],
        order_workers: Callable[[Order], int],
        preload: Sequence[str] | None,
        debug: bool,
        stop_timeout: float,
        hosts: Sequence[str] = (),
        control: Callable[[Request, socket.socket], object] = lambda request, connection: connection.close(),
        waiting: Callable[[], Iterable[WaitingClient]] = tuple,
    ) -> None:
        super().__init__(bus)
        self.launch = launch
        self.switchboard = switchboard
        self.sockets = sockets
        self.take_back = take_back
        self.order_workers = order_workers
        self.preload = preload
        self.debug = debug
        self.stop_timeout = stop_timeout
        self.hosts = list(map(str, hosts))
        self.control = control
        self.waiting = waiting
        self._serves = False

    def send(self, message: Message, descriptors: Iterable[int] = ()) -> None:
        """Send a message to the launcher, without waiting for it."""
        try:
            self.switchboard.post(self.launch.link, message, descriptors)
        except (BrokenLink, ValueError) as error:  # ValueError: too large
            self.bus.log(f"A message to the launcher was not sent: {error}", level=30)
        except OSError:  # it has ended, and this process is about to
            pass

    # Sockets

    def lend(self) -> None:
        """Lend the launcher all sockets, so that they stay open whatever fails from now on."""
        self._watch_launcher()  # before the launcher knows that it may send messages
        states = self.sockets()
        message = {"sockets": [asdict(each) for each in states], "stop_timeout": self.stop_timeout}
        self.send(message, [each.descriptor for each in states])

    def _watch_launcher(self) -> None:
        descriptor = self.launch.link.fileno()
        # The kernel would also send a signal (see `site_program`), and a second signal ends a site at once.
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~fcntl.FASYNC)
        self.switchboard.watch(descriptor, self._hear_launcher, self.launch.link)

    def _hear_launcher(self) -> None:
        """Restart or ask about changed files, as the launcher says; exit if it has ended."""
        messages = self.launch.link.receive()
        if messages is not None:
            for message, descriptors in messages:
                if "control" in message:
                    self._answer_client(ClientRequest(**message["control"]), descriptors)
                elif "changed" in message:
                    self.ask_about(message["changed"])
                elif "interrupted" in message:
                    self._interrupt()
                else:
                    self.bus.defer(self.bus.restart)
            return
        self.switchboard.forget(self.launch.link.fileno())
        self.bus.log("The launcher has ended; exiting.")
        self.take_back()
        self.bus.watchdog.expect_exit()
        self.bus.defer(self.bus.exit)

    def _answer_client(self, request: ClientRequest, descriptors: list[int]) -> None:
        """Answer a client whose connection the launcher has passed on."""
        if descriptors:  # else this process has none free, and the launcher says that it does not answer
            connection = socket.socket(fileno=descriptors[0])
            is_taken = not self.bus.exit_asked
            self.send({"taken" if is_taken else "declined": request.number})
            # If it has ended, the launcher has answered the client, as this process did not in time.
            if has_ended(connection) or not is_taken:
                connection.close()
            else:
                self.control(Request(request.action, request.arguments), connection)

    def _interrupt(self) -> None:
        """Send SIGINT to this process, unless the terminal has done so: a second one ends a site at once."""
        if not self.bus.exit_asked and self.bus.watchdog.expected is None:
            os.kill(os.getpid(), signal.SIGINT)

    def start(self) -> None:
        # Deferred until all start listeners have run, also those after a failure.
        self.bus.defer(self.report_start)

    start.priority = LAST  # type: ignore[attr-defined]

    def report_start(self) -> None:
        """Report that this process serves, and the facts that the launcher needs for the next one."""
        # The launcher sends a signal to give up a boot that takes long, and keeps serving on the sockets.
        is_about_to_exit = self.bus.watchdog.expected is not None
        if self.bus.state is not self.bus.states.STARTED or is_about_to_exit:
            return
        self._serves = True
        self.send({"hosts": self.hosts})
        self.send({"started": self.debug})
        library = None if self.preload is None else asdict(spare.describe(self.preload))
        self.send({"library": library})

    # Files

    def report_watched(self, watched: Message, since: int | None) -> None:
        """Report the files of a worker, or those that it has imported ``since`` a `time.time_ns`."""
        if since is None:
            watched = asdict(WatchList(libraries.project_files()) | WatchList(**watched))
        self.send({"watch": watched, "since": since})

    def ask_about(self, changed: Sequence[str]) -> None:
        """Ask all workers about changed files. A worker that does not handle them calls `autoreload`."""
        asked = self.order_workers(Changed(list(changed))) + len(self.bus.publish(CHANGED, changed))
        if not asked:
            self.autoreload(changed)

    def autoreload(self, changed: Sequence[str] = ()) -> None:
        """Restart the site, because files have changed."""
        if not self.bus.exit_asked:
            self.bus.log(f"Changed: {', '.join(changed)}. Restarting.")
            self.bus.defer(self.bus.restart)  # the stop listeners are for the main thread

    def stop(self) -> None:
        if self.bus.exit_asked and not self.bus.execv:
            self.send({"exiting": True})
            if self._serves:
                self.take_back()
        elif self.bus.execv:
            self.send({"relaunching": True})
        self._serves = False

    stop.priority = 0  # type: ignore[attr-defined]

    def exit(self) -> None:
        """Hand clients over, and bound the time for which threads of the project delay the next start."""
        if self.bus.execv:
            self._hand_over_clients()
            timer = threading.Timer(TIME_FOR_THREADS, self._end_without_threads)
            timer.daemon = True
            timer.start()

    exit.priority = 100  # type: ignore[attr-defined]

    def _end_without_threads(self) -> None:
        names = [each.name for each in other_threads()]
        with contextlib.suppress(Exception):  # closed
            if names:  # else a debugger or an atexit function delays the end
                sys.stderr.write(f"Not waiting for threads that do not end: {', '.join(names)}.\n")
            sys.stdout.flush()
            sys.stderr.flush()
            self.launch.link.finish(TIME_FOR_THREADS)
        os._exit(RELAUNCH)

    def _hand_over_clients(self) -> None:
        if clients := list(self.waiting()):
            self.send({"waiting": list(map(asdict, clients))}, [each.descriptor for each in clients])

    def replace(self) -> NoReturn:
        """End this process with the status by which the launcher starts another."""
        self._hand_over_clients()  # those that have come meanwhile
        raise SystemExit(RELAUNCH)

    def subscribe(self) -> None:
        super().subscribe()
        self.bus.subscribe("start", self.lend, 21, role=self.role)
        self.bus.subscribe(WATCH, self.report_watched, role=self.role)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe("start", self.lend)
        self.bus.unsubscribe(WATCH, self.report_watched)
