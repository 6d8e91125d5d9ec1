"""A worker of gunicorn: it boots, waits to be released, answers, and exits."""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from django.core.signals import request_finished

from ...application.warmup import warm_up
from ...children.orders import SERVE, read_orders
from ...development.launch import CHANGED
from ...process.asking import RemoteSite
from ...process.bus import bus
from ...process.messages import Message
from ...process.phases import TIME_FOR_UNSERVED_CHILD, time_of_site
from ...process.reports import Answered, Failed, Ready
from ...process.worker_orders import Changed, read_order
from ...project.tracebacks import explain
from ...wspbus import EX_SOFTWARE, Bus, ChannelFailures, Refusal
from .exit import PROVEN, SERVING, WorkerExit
from .failing import LONGEST_REASON, give_up, status_of_failure
from .signals import accept_signals

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from ...conf import Settings

HEARTBEAT_INTERVAL = 0.2
"""Seconds between two signs of life of a worker that boots."""

RELEASE_INTERVAL = 0.1
"""Seconds between two checks whether a worker that waits to be released has to exit."""


class WorkerProcess:
    """The life of a worker besides its answers. ``stage``: a byte by which the master knows its stage."""

    def __init__(self, settings: Settings, pair: socket.socket, stage: mmap.mmap) -> None:
        self.settings = settings
        self.site = SiteOfWorker(pair, self)
        self.pair = pair
        self.stage = stage
        self.exit = WorkerExit(settings, self.site, pair, stage)
        self.exit.watch_site()
        self.site.announce_role("worker")
        bus.site = self.site
        bus.roles = {"worker"}
        bus.stop_timeout = min(TIME_FOR_UNSERVED_CHILD, time_of_site(settings.stop_timeout))

    def reload_on_change(self) -> None:
        """Answer for changed files, and ask the site to restart if need be: see `Autoreloader`."""
        from ...plugins.autoreload import Autoreloader  # a production worker has no use for it

        Autoreloader.of(bus, self.settings.autoreload).subscribe()
        self.site.listen(self.obey)

    def obey(self, message: Message) -> None:
        """Carry out an order of the site, in the thread that listens."""
        match read_order(message):
            case Changed(files):
                bus.publish(CHANGED, files)

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
                self.site.report(Ready(os.getpid()))
                self.await_release(worker)
        self.stage[0] = SERVING
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
        self.stage[0] = PROVEN
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
