"""A worker of gunicorn, as the site sees it: it boots, waits at the gate, answers, and leaves."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.signals import request_finished
from gunicorn.arbiter import Arbiter
from gunicorn.workers.sync import SyncWorker

from ..asking import RemoteSite
from ..plugins.autoreload import Autoreloader
from ..process import bus
from ..tracebacks import explain
from ..warmup import warm_up
from ..wspbus import EX_SOFTWARE, Bus, ChannelFailures, Refusal
from .generation import DRAIN, SERVE, read_orders
from .queue import queue_length

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from ..conf import Settings

BOOTING, SERVING, PROVEN = range(3)
"""How far a worker has come: proven are those that have answered a request."""

FAILED = 1
"""The status of a worker that does not come up where others serve."""

MOST_OF_A_REASON = 60_000
LAST_SECONDS = 0.8
"""How long a worker may go on answering once the site process is gone; also its part of STOP_TIMEOUT."""


def accept_term() -> None:
    """Let a SIGTERM through that came between a fork and now.

    gunicorn installs the handlers of a worker some time after it has forked: before, it would be lost.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def give_up(
    site: RemoteSite, reason: str = "", status: int = 1, pair: socket.socket | None = None
) -> NoReturn:
    """Tell the site why this process cannot serve, and leave in the way that stops gunicorn.

    Where others of the child at the other end of ``pair`` serve already, gunicorn goes on, and forks
    another. Without a ``reason`` it is the traceback of the exception that is being handled.
    """
    error = sys.exception()
    reason = reason or (f"its boot failed: {explain(error)}" if error else "its boot failed.")
    site.tell(failed=reason[-MOST_OF_A_REASON:], status=status)
    others_serve = pair is not None and SERVE in read_orders(pair)
    raise SystemExit(FAILED if others_serve else Arbiter.WORKER_BOOT_ERROR) from None


class WorkerProcess:
    """What a worker does besides answering. ``sign``: a byte by which it tells its master how far it is."""

    def __init__(self, settings: Settings, site: RemoteSite, pair: socket.socket, sign: mmap.mmap) -> None:
        self.settings = settings
        self.site = site
        self.pair = pair
        self.sign = sign
        self._has_begun = False
        threading.Thread(target=self.watch_site, name="Site watch", daemon=True).start()
        site.play("worker")
        bus.site = site
        bus.roles = {"worker"}
        bus.stop_timeout = settings.stop_timeout * LAST_SECONDS
        bus.logs_failed_start = False  # the site does, once for all workers
        bus.subscribe("abort", self.tell_failed_stop)  # the watchdog ends a listener that hangs

    def reload_on_change(self, **told: Any) -> None:
        """Have the site started again when a file changes; ``told``: see `Autoreloader`."""
        Autoreloader.of(bus, self.settings.autoreload, **told).subscribe()

    def boot(self, worker: Worker, application: Any) -> None:
        """Start the bus, and return when requests may be answered, or when the worker is to leave."""
        accept_term()
        with Heartbeat(worker, bus, self.settings.ready_timeout):
            self._has_begun = True
            try:
                bus.start()
                if bus.state is bus.states.STARTED:
                    warm_up(application, self.settings.warmup)
            except ChannelFailures as failures:
                reasons = "\n".join(map(explain, failures.get_instances()))
                self.give_up(f"a start listener of worker {os.getpid()} failed.\n{reasons}", EX_SOFTWARE)
            except Refusal as refusal:
                self.give_up(str(refusal))
            if bus.state is bus.states.STARTED:
                self.site.tell(ready=os.getpid())
                self.wait_at_gate(worker)
            elif bus.failed:
                self.tell_failed_stop()
        self.sign[0] = SERVING
        request_finished.connect(self.tell_answered)

    def wait_at_gate(self, worker: Worker) -> None:
        """Answer nothing before the site says so, or rather, never if it says to leave."""
        poll = select.poll()
        poll.register(self.pair, select.POLLIN)
        while worker.alive and SERVE not in read_orders(self.pair):
            poll.poll(100)  # a signal to leave does not end a poll, but is seen after it

    def give_up(self, reason: str, status: int = 1) -> NoReturn:
        give_up(self.site, reason, status, self.pair)

    def tell_answered(self, **kwargs: Any) -> None:
        """Tell the site of the first answer: whatever happens from now on, this code has worked."""
        request_finished.disconnect(self.tell_answered)
        self.sign[0] = PROVEN
        self.site.tell(answered=os.getpid())

    def leave(self, worker: Worker) -> None:
        """Run the stop listeners, after the last request."""
        if self._has_begun and bus.state is not bus.states.EXITING:
            self.answer_queue(worker)
            bus.exit()
            if bus.failed:
                self.tell_failed_stop()

    def answer_queue(self, worker: Worker) -> None:
        """Have a sync worker, which takes one connection at a time, answer those that wait for their turn."""
        if not isinstance(worker, SyncWorker) or DRAIN not in read_orders(self.pair):
            return
        for listener in worker.sockets:
            most = queue_length(listener)  # each that is taken makes room for one more
            with contextlib.suppress(OSError):
                while most is None or most > 0:
                    worker.accept(listener)
                    most = most and most - 1

    def tell_failed_stop(self) -> None:
        self.site.tell(failed_stop=os.getpid())

    def watch_site(self) -> None:
        """Leave when the site process is gone, however it went."""
        poll = select.poll()
        poll.register(self.pair, 0)  # for its end alone: what it holds are orders
        poll.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(LAST_SECONDS)
        with contextlib.suppress(OSError):  # nobody reads it
            os.write(2, f"Worker {os.getpid()}: the site process is gone, and time is up.\n".encode())
        os._exit(1)


class Heartbeat:
    """Keeps gunicorn's master from taking a worker that runs its start listeners for a hung one.

    It also hands on a request to leave that comes meanwhile, which gunicorn only notes.
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
        while not self._done.wait(0.2) and time.monotonic() < self._deadline:
            self._worker.notify()
            if not self._worker.alive:
                self._bus.exit()
                return
