"""The exit of a worker of gunicorn: its requests, then its stop listeners, each within their time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from gunicorn.workers.sync import SyncWorker

from ...application.in_flight import RequestsInFlight
from ...children.deadlines import Deadlines
from ...children.orders import DRAIN, follow_orders, has_ended, read_exit, read_orders
from ...process.asking import RemoteSite
from ...process.bus import bus
from ...process.phases import time_of_site
from ...process.record import Record, Stage
from ...process.reports import Stopped
from ...sockets.queue import queue_length
from ...wspbus import EX_SOFTWARE
from ..base import in_words
from .failing import LONGEST_REASON

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from ...conf import Settings

WARMING_UP = "a request of WARMUP"
UNFINISHED = "a connection without a whole request"

TIME_WITHOUT_SITE = 0.8
"""Seconds that a worker has once the site process has ended; half of them are for its listeners."""

TIME_OF_ABORTED = 0.5
"""Seconds for the listeners of a worker that gunicorn aborts: its master kills it after a second."""

TIME_TO_UNWIND = 0.2
"""Seconds of that second in which the main thread may end the request that was aborted."""


class WorkerExit:
    """The exit of this process."""

    def __init__(
        self,
        settings: Settings,
        site: RemoteSite,
        pair: socket.socket,
        record: Record,
        requests: RequestsInFlight,
    ) -> None:
        self.settings = settings
        self.site = site
        self.pair = pair
        self.record = record
        self.requests = requests
        self.deadlines = Deadlines()
        """The moments at which requests and listeners are cut off."""
        self.on_drain: Callable[[], object] = lambda: None
        """The function to call when the clients in the queue are to be answered before the exit."""
        self.has_booted = False
        """True once start listeners have begun to run, so that the stop listeners have to run as well."""
        self.is_over = False
        """True once the stop listeners have run."""
        self.awaited = threading.Event()
        """Set once the exit has been ordered: a worker that stands by waits for it."""
        self._unfinished: list[str] = []
        self._is_aborted = False
        self._turn = threading.Lock()  # of the thread that runs the stop listeners
        self._last_report = threading.Lock()

    def watch_site(self) -> None:
        """Start the thread that exits when the site orders it, or has ended."""
        threading.Thread(target=self._watch_site, name="Site watch", daemon=True).start()

    def begin(self, requests: float, listeners: float) -> None:
        """Cut off requests, and later listeners, if they are not over by these moments or by earlier ones."""
        is_first = self.deadlines.shorten(requests, listeners)
        self.awaited.set()
        if is_first:
            with contextlib.suppress(RuntimeError):  # no new thread while the interpreter ends
                threading.Thread(target=self._keep_deadlines, name="Exit", daemon=True).start()

    # Called by the hooks of gunicorn

    def run(self, worker: Worker) -> None:
        """Run the stop listeners, after the last request."""
        if not self.has_booted or self.is_over:
            return
        self._answer_queue(worker)
        if not self._turn.acquire(blocking=False):
            threading.Event().wait()  # the watch runs them, and ends this process
        self._run_listeners()

    def note_abort(self) -> None:
        """In a signal handler: gunicorn's timeout is up, and its master kills this process in a second.

        A listener that this cuts off is named. If a request is cut off, the listeners have to run now.
        """
        self._is_aborted = True
        if self._turn.locked() and not self.is_over:
            bus.watchdog.end_hanging(threading.main_thread().ident)
        start_new_thread(self._run_aborted, ())  # a Thread has locks, which the main thread may hold

    def _run_aborted(self) -> None:
        """Run the stop listeners if the main thread does not, because gunicorn still waits for a client."""
        time.sleep(TIME_TO_UNWIND)
        if bus.state is bus.states.STARTED and self._turn.acquire(blocking=False):
            self._cut_off()

    def _answer_queue(self, worker: Worker) -> None:
        """Answer the clients in the queue, in a sync worker, which takes one connection at a time."""
        if not isinstance(worker, SyncWorker) or DRAIN not in read_orders(self.pair):
            return
        for listener in worker.sockets:
            most = queue_length(listener)  # each that is taken makes room for one more
            with contextlib.suppress(OSError):
                while most is None or most > 0:
                    worker.accept(listener)
                    most = most and most - 1

    # Stop listeners

    def _run_listeners(self) -> None:
        """Run the stop listeners, and report their failures and the requests that were cut off."""
        bus.stop_timeout = self._time_for_listeners()
        try:
            if bus.state is not bus.states.EXITING:
                bus.exit()
        finally:
            self._report()
        if self._names():  # their threads would keep the interpreter from its end
            self._end()

    def _time_for_listeners(self) -> float:
        """Return the seconds that the site allows; if it has not ordered the exit, those of the settings."""
        if self._is_aborted:
            return TIME_OF_ABORTED
        if (moments := read_exit(read_orders(self.pair))) is not None:  # the watch may not have seen it yet
            self.begin(*moments)
        if self.deadlines.listeners is None:
            return time_of_site(self.settings.stop_timeout)
        return max(self.deadlines.listeners - time.monotonic(), 0.1)

    def _report(self, *failures: str) -> None:
        """Report that the listeners have run, or which of them is cut off."""
        pid, failed = os.getpid(), list(failures)
        if bus.failed and not failures:
            failed.append(f"a stop listener of worker {pid} failed.")
        self.site.report(Stopped(pid, failed, in_words(self._names())))
        self.is_over = True

    def _names(self) -> list[str]:
        """Return the requests that are not answered."""
        return self.requests.names() or self._unfinished

    def report_hanging(self, text: str) -> None:
        """Report which listener hangs, just before this process ends."""
        if not self._last_report.acquire(blocking=False):
            threading.Event().wait()  # another thread reports it, and ends this process
        if has_ended(self.pair):
            with contextlib.suppress(OSError):  # the output may be closed
                os.write(2, f"{text}\n".encode())
        self._report(f"worker {os.getpid()}: {text[-LONGEST_REASON:]}")

    def _cut_off(self) -> NoReturn:
        """Run the stop listeners, although requests are not answered: their time is up."""
        if not self.requests.names():
            self._unfinished = [WARMING_UP if self.record.stage == Stage.BOOTING else UNFINISHED]
        try:
            self._run_listeners()
        finally:
            self._end()

    def _end(self) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or None
                stream.flush()
        os._exit(EX_SOFTWARE if bus.failed else 0)

    # The site

    def _watch_site(self) -> None:
        """Exit in the phases that the site orders, or at once when the site process ends."""
        for orders in follow_orders(self.pair):
            if DRAIN in orders:
                self.on_drain()
            if (moments := read_exit(orders)) is not None:
                self.begin(*moments)
        os.kill(os.getpid(), signal.SIGTERM)
        now = time.monotonic()
        self.begin(now + TIME_WITHOUT_SITE / 2, now + TIME_WITHOUT_SITE)
        # No thread of the project keeps this process alive after that.
        threading.Event().wait(TIME_WITHOUT_SITE)
        with contextlib.suppress(OSError):  # the output may be closed
            os.write(2, f"The site process has ended; ending worker {os.getpid()}.\n".encode())
        os._exit(1)

    def _keep_deadlines(self) -> None:
        self.deadlines.await_requests()
        if bus.state is bus.states.STARTED and self._turn.acquire(blocking=False):
            start_new_thread(self._cut_off, ())
        self.deadlines.await_listeners()
        if self.has_booted and not self.is_over:
            bus.watchdog.end_hanging(threading.main_thread().ident)
