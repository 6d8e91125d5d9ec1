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
from _thread import start_new_thread
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.signals import request_finished
from gunicorn.arbiter import Arbiter
from gunicorn.workers.sync import SyncWorker

from ...application.warmup import warm_up
from ...children.generation import DRAIN, SERVE, await_exit, read_exit, read_orders
from ...plugins.autoreload import Autoreloader
from ...process.asking import RemoteSite
from ...process.bus import bus
from ...process.phases import OF_A_BOOT, time_of_site
from ...project.tracebacks import explain
from ...sockets.queue import queue_length
from ...wspbus import EX_SOFTWARE, Bus, ChannelFailures, Refusal
from ..base import in_words

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from ...conf import Settings

BOOTING, SERVING, PROVEN = range(3)
"""How far a worker has come: proven are those that have answered a request."""

FAILED = 1
"""The status of a worker that does not come up where others serve."""

MOST_OF_A_REASON = 60_000
WARMING_UP = "a request of WARMUP"
UNFINISHED = "a connection without a whole request"
LAST_SECONDS = 0.8
"""Seconds that a worker has once the site process has ended; half of them are for its listeners."""

ABORTED = 0.5
"""Seconds for the listeners of a worker that gunicorn aborts: its master kills it after a second."""

TO_UNWIND = 0.2
"""Seconds of that second in which the main thread may end the request that was aborted."""


def accept_term() -> None:
    """Unblock a SIGTERM that came between a fork and now.

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
    raise SystemExit(status_of_failure(pair)) from None


def status_of_failure(pair: socket.socket | None) -> int:
    """Return the status that stops gunicorn, unless other workers serve already."""
    others_serve = pair is not None and SERVE in read_orders(pair)
    return FAILED if others_serve else Arbiter.WORKER_BOOT_ERROR


class WorkerProcess:
    """The life of a worker besides its answers. ``sign``: a byte that tells its master how far it is."""

    def __init__(self, settings: Settings, site: RemoteSite, pair: socket.socket, sign: mmap.mmap) -> None:
        self.settings = settings
        self.site = site
        self.pair = pair
        self.sign = sign
        self.requests: dict[int, str] = {}
        """The requests being answered: {id of gunicorn's request: "GET /"}."""
        self._has_begun = False
        self._has_left = False
        self._is_aborted = False
        self._turn = threading.Lock()  # of the thread that runs the stop listeners
        self._last_words = threading.Lock()
        threading.Thread(target=self.watch_site, name="Site watch", daemon=True).start()
        site.play("worker")
        bus.site = site
        bus.roles = {"worker"}
        bus.stop_timeout = min(OF_A_BOOT, time_of_site(settings.stop_timeout))
        bus.logs_failed_start = False  # the site does, once for all workers
        bus.report_failed_start = self.tell_failed_start
        bus.report_hanging = self.tell_hanging

    def reload_on_change(self, **told: Any) -> None:
        """Ask the site to start again when a file changes; ``told``: see `Autoreloader`."""
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
            except ChannelFailures:  # the site knows why
                self._has_left = True
                raise SystemExit(self.status_of_failure()) from None
            except Refusal as refusal:
                self.give_up(str(refusal))
            if bus.state is bus.states.STARTED:
                self.site.tell(ready=os.getpid())
                self.wait_at_gate(worker)
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

    def tell_failed_start(self, error: BaseException) -> None:
        """Tell the site why the bus does not start, before the stop listeners run, which may hang."""
        errors = error.get_instances() if isinstance(error, ChannelFailures) else [error]
        reason = "\n".join([f"a start listener of worker {os.getpid()} failed.", *map(explain, errors)])
        self.site.tell(failed=reason[-MOST_OF_A_REASON:], status=EX_SOFTWARE)

    def status_of_failure(self) -> int:
        return status_of_failure(self.pair)

    def tell_answered(self, **kwargs: Any) -> None:
        """Tell the site of the first answer: whatever happens from now on, this code has worked."""
        request_finished.disconnect(self.tell_answered)
        self.sign[0] = PROVEN
        self.site.tell(answered=os.getpid())

    def leave(self, worker: Worker) -> None:
        """Run the stop listeners, after the last request."""
        if not self._has_begun or self._has_left:
            return
        self.answer_queue(worker)
        if not self._turn.acquire(blocking=False):
            threading.Event().wait()  # the watch runs them, and ends this process
        self.run_listeners()

    def run_listeners(self) -> None:
        """Run the stop listeners, and tell the site what came of it and of the requests."""
        bus.stop_timeout = self.time_for_listeners()
        try:
            if bus.state is not bus.states.EXITING:
                bus.exit()
        finally:
            self.tell_left()
        if self.requests:  # their threads would keep the interpreter from its end
            self.end()

    def time_for_listeners(self) -> float:
        """Return seconds: what the site allows, or the settings where it has not asked for the exit."""
        if self._is_aborted:
            return ABORTED
        moments = read_exit(read_orders(self.pair))
        if moments is None:
            return time_of_site(self.settings.stop_timeout)
        return max(moments[1] - time.monotonic(), 0.1)

    def tell_left(self, *failures: str) -> None:
        """Tell the site that the listeners have run, or which of them is cut off."""
        pid, failed = os.getpid(), list(failures)
        if bus.failed and not failures:
            failed.append(f"a stop listener of worker {pid} failed.")
        self.site.tell(left=pid, failures=failed, cut_off=in_words(list(self.requests.values())))
        self._has_left = True

    def tell_hanging(self, text: str) -> None:
        """Tell the site which listener hangs, just before this process ends."""
        if not self._last_words.acquire(blocking=False):
            threading.Event().wait()  # another thread tells it, and ends this process
        if has_ended(self.pair):
            with contextlib.suppress(OSError):  # the output may be closed
                os.write(2, f"{text}\n".encode())
        self.tell_left(f"worker {os.getpid()}: {text[-MOST_OF_A_REASON:]}")

    def cut_off(self) -> NoReturn:
        """Run the stop listeners, although requests are not answered: their time is up."""
        if not self.requests:
            self.requests[0] = WARMING_UP if self.sign[0] == BOOTING else UNFINISHED
        try:
            self.run_listeners()
        finally:
            self.end()

    def end(self) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or None
                stream.flush()
        os._exit(EX_SOFTWARE if bus.failed else 0)

    def answer_queue(self, worker: Worker) -> None:
        """Answer, in a sync worker, which takes one connection at a time, those that wait for their turn."""
        if not isinstance(worker, SyncWorker) or DRAIN not in read_orders(self.pair):
            return
        for listener in worker.sockets:
            most = queue_length(listener)  # each that is taken makes room for one more
            with contextlib.suppress(OSError):
                while most is None or most > 0:
                    worker.accept(listener)
                    most = most and most - 1

    # gunicorn's hooks

    def note_request(self, request: Any) -> None:
        self.requests[id(request)] = f"{request.method} {request.path}"

    def forget_request(self, request: Any) -> None:
        self.requests.pop(id(request), None)

    def note_abort(self) -> None:
        """In a signal handler: gunicorn's timeout is up, and its master kills this process in a second.

        A listener that this cuts off is named. If a request is cut off, the listeners have to run now.
        """
        self._is_aborted = True
        if self._turn.locked() and not self._has_left:
            bus.end_hanging(threading.main_thread().ident)
        start_new_thread(self.leave_aborted, ())  # a Thread has locks, which the main thread may hold

    def leave_aborted(self) -> None:
        """Run the stop listeners, if the main thread does not: gunicorn still waits for the client, say."""
        time.sleep(TO_UNWIND)
        if bus.state is bus.states.STARTED and self._turn.acquire(blocking=False):
            self.cut_off()

    # The site

    def watch_site(self) -> None:
        """Exit in the phases that the site orders; at once when the site process has ended."""
        moments = await_exit(self.pair)
        if moments is not None:
            self.exit_by(*moments, partial(has_ended, self.pair))
            has_ended(self.pair, None)  # no thread of the project keeps this process alive after that
        os.kill(os.getpid(), signal.SIGTERM)
        now = time.monotonic()
        self.exit_by(now + LAST_SECONDS / 2, now + LAST_SECONDS, wait)
        with contextlib.suppress(OSError):  # the output may be closed
            os.write(2, f"Worker {os.getpid()} ends, as the site process has ended.\n".encode())
        os._exit(1)

    def exit_by(self, requests: float, listeners: float, wait: Callable[[float], bool]) -> None:
        """Cut off requests, and later listeners, if they are not over by then; ``wait`` may end it early."""
        if wait(requests - time.monotonic()):
            return
        if bus.state is bus.states.STARTED and self._turn.acquire(blocking=False):
            self.cut_off()
        if not wait(listeners - time.monotonic()) and self._has_begun and not self._has_left:
            bus.end_hanging(threading.main_thread().ident)


def has_ended(pair: socket.socket, within: float | None = 0) -> bool:
    """Return whether the site process has ended, or does so within some seconds; None: wait for it."""
    poll = select.poll()
    poll.register(pair, 0)  # for its end alone: what it holds are orders
    return bool(poll.poll(None if within is None else max(within, 0) * 1000))


def wait(seconds: float) -> bool:
    threading.Event().wait(max(seconds, 0))
    return False


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
