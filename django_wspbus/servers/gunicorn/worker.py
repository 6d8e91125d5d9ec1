"""A worker of gunicorn: it stands by, boots, waits to be released, answers, and exits."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from django.core.signals import request_finished

from ...application.in_flight import RequestsInFlight
from ...application.warmup import warm_up
from ...children.orders import SERVE, read_orders
from ...development.launch import CHANGED
from ...process.asking import RemoteSite
from ...process.bus import bus
from ...process.membership import Membership
from ...process.phases import TIME_FOR_UNSERVED_CHILD, time_of_site
from ...process.record import Record, Stage
from ...process.reports import Answered, Failed, Ready, Standby
from ...process.worker_orders import Begin, Changed, Order, Retire
from ...project.tracebacks import explain
from ...wspbus import EX_SOFTWARE, Bus, ChannelFailures, Refusal
from .exit import WorkerExit
from .failing import LONGEST_REASON, give_up, status_of_failure
from .signals import accept_signals

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from ...conf import Settings

HEARTBEAT_INTERVAL = 0.2
"""Seconds between two signs of life of a worker that boots."""

NOTIFY_INTERVAL = 1.0
"""Seconds between two signs of life of a worker that stands by."""

RELEASE_INTERVAL = 0.1
"""Seconds between two checks whether a worker that waits to be released has to exit."""


class WorkerProcess:
    """The life of a worker besides its answers."""

    def __init__(self, settings: Settings, pair: socket.socket, record: Record) -> None:
        self.settings = settings
        self.pair = pair
        self.record = record
        self.site = SiteOfWorker(pair, self)
        self.requests = RequestsInFlight(record)
        self.exit = WorkerExit(settings, self.site, pair, record, self.requests)
        self.has_begun = threading.Event()
        self.exit.watch_site()
        Membership(bus, self.site, record, self.obey).join()
        bus.roles = {"worker"}
        bus.stop_timeout = min(TIME_FOR_UNSERVED_CHILD, time_of_site(settings.stop_timeout))

    def reload_on_change(self) -> None:
        """Answer for changed files, and ask the site to restart if need be: see `Autoreloader`."""
        from ...plugins.autoreload import Autoreloader  # a production worker has no use for it

        Autoreloader.of(bus, self.settings).subscribe()

    # Orders

    def obey(self, order: Order) -> None:
        """Carry out an order to a worker, in the thread that listens."""
        match order:
            case Begin():
                self.has_begun.set()
                self.exit.awaited.set()
            case Retire(requests, listeners):
                self.exit.begin(requests, listeners)
                os.kill(os.getpid(), signal.SIGTERM)
            case Changed(files):
                bus.publish(CHANGED, files)

    # Its life

    def stand_by(self, worker: Worker) -> bool:
        """Wait until the site orders this worker to begin; return False if it has to exit instead."""
        accept_signals()
        self.record.stage = Stage.STANDBY
        self.site.report_listening(Standby(os.getpid()))
        # gunicorn kills a worker that shows no sign of life for twice its timeout.
        interval = min(NOTIFY_INTERVAL, (worker.timeout or NOTIFY_INTERVAL) / 2)
        while worker.alive and not self.exit.awaited.wait(interval):
            worker.notify()
        if not self.has_begun.is_set() or self.exit.deadlines.requests is not None:
            worker.alive = False
        self.record.stage = Stage.BOOTING if worker.alive else Stage.STANDBY
        return bool(worker.alive)

    def boot(self, worker: Worker, application: Any) -> None:
        """Start the bus; return when the worker may answer requests, or when it has to exit."""
        accept_signals()
        with Heartbeat(worker, bus, self.settings.ready_timeout):
            self.exit.has_booted = True
            try:
                bus.start()
                if bus.state is bus.states.STARTED:
                    warm_up(application, self.settings.warmup)
            except ChannelFailures:  # the site knows why
                self.exit.is_over = True
                raise SystemExit(status_of_failure(self.pair)) from None
            except Refusal as refusal:
                give_up(self.site, str(refusal), pair=self.pair)
            if bus.state is bus.states.STARTED:
                self.record.stage = Stage.READY
                self.site.report(Ready(os.getpid()))
                self.await_release(worker)
        self.record.served_from = time.monotonic()
        self.record.stage = Stage.SERVING
        request_finished.connect(self.report_first_answer)

    def await_release(self, worker: Worker) -> None:
        """Wait until the site orders the worker to serve, or until the worker has to exit."""
        poll = select.poll()
        poll.register(self.pair, select.POLLIN)
        while worker.alive and SERVE not in read_orders(self.pair):
            poll.poll(RELEASE_INTERVAL * 1000)  # a signal to exit does not end a poll, but is seen after it

    def report_first_answer(self, **kwargs: Any) -> None:
        """Report the first answer, which proves that this code works."""
        request_finished.disconnect(self.report_first_answer)
        self.record.stage = Stage.PROVEN
        self.site.report(Answered(os.getpid()))


class SiteOfWorker(RemoteSite):
    """The site, seen from a worker, which reports why its bus does not start."""

    def __init__(self, pair: socket.socket, worker: WorkerProcess) -> None:
        super().__init__(pair, "worker")
        self._worker = worker

    @property
    def _is_worker(self) -> bool:
        """True in the worker itself, and not in a process that the worker has forked."""
        return self._role == "worker"

    def report_failure(self, channel: str, error: Exception) -> bool:
        return channel == "start" and self._is_worker

    def report_failed_start(self, error: BaseException) -> bool:
        if self._is_worker:
            errors = error.get_instances() if isinstance(error, ChannelFailures) else [error]
            reason = "\n".join([f"a start listener of worker {os.getpid()} failed.", *map(explain, errors)])
            self.report(Failed(reason[-LONGEST_REASON:], EX_SOFTWARE))
        return self._is_worker

    def report_hanging(self, text: str) -> bool:
        if self._is_worker:
            self._worker.exit.report_hanging(text)
        return self._is_worker


class Heartbeat:
    """Shows gunicorn's master that a worker which runs its start listeners does not hang.

    If gunicorn asks the worker to exit meanwhile, it makes the bus exit.
    """

    def __init__(self, worker: Worker, bus: Bus, timeout: float) -> None:
        self._worker = worker
        self._bus = bus
        self._deadline = time.monotonic() + timeout
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="Heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *args: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(HEARTBEAT_INTERVAL) and time.monotonic() < self._deadline:
            self._worker.notify()
            if not self._worker.alive:
                self._bus.exit()
                return
