"""gunicorn, in a child process: its master loads the application, its workers run the bus."""

from __future__ import annotations

import contextlib
import gc
import logging
import mmap
import os
import runpy
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import django
from django.core.signals import request_finished
from django.db import connections
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.workers.sync import SyncWorker

from ..application import explain
from ..site import RemoteSite
from ..wspbus import EX_SOFTWARE, Bus, ChannelFailures, Refusal
from .backoff import Backoff
from .boot import die_with
from .generation import DRAIN, SERVE
from .gunicorn import check_options
from .queue import queue_length

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from ..conf import ServerSettings, Settings

logger = logging.getLogger("django_wspbus")

HOOKS_OF_OURS = ("on_starting", "pre_fork", "post_fork", "post_worker_init", "worker_exit", "child_exit")
HOOKS_OF_ONE = ("on_starting", "post_worker_init")
BOOTING, SERVING, PROVEN = range(3)
"""How far a worker has come: proven are those that have answered a request."""
LIFETIME_OF_WORTH = 1
"""Seconds after which a worker has been worth its fork, whether anybody has asked it anything or not."""
FAILED = 1
"""The status of a worker that does not come up where others serve: gunicorn goes on, and forks another."""
MOST_OF_A_REASON = 60_000
LAST_SECONDS = 0.8
"""How long a worker may go on answering once the site process is gone."""


def run(start: dict[str, Any], pair: socket.socket) -> None:
    """Serve until told to stop; what is wrong before that is sent to the site, and not printed."""
    site = RemoteSite(pair, "master")
    try:
        django.setup()
        from .. import conf

        settings, _ = conf.read(start["overrides"])
        if settings is None or start["alias"] not in settings.servers:
            raise Refusal(
                f"the settings on disk have no valid server {start['alias']!r} any more: "
                "check them, and restart the site if it is to go."
            )
        child = Child(start, settings, site, pair)
        application = Application(child)
    except Refusal as refusal:
        give_up(site, str(refusal))
    except Exception:  # the project's own code: anything may come
        give_up(site)
    os.register_at_fork(after_in_parent=accept_term)
    try:
        application.run()
    except HaltServer as halt:  # a worker failed to boot while gunicorn was stopping already
        raise SystemExit(halt.exit_status) from None


def accept_term() -> None:
    """Let a SIGTERM through that came between a fork and now.

    gunicorn installs the handlers of a worker some time after it has forked: before, it would be lost.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def give_up(site: RemoteSite, reason: str = "", status: int = 1, leave_with: int | None = None) -> NoReturn:
    """Tell the site why this process cannot serve, and leave in the way that stops gunicorn.

    Without a ``reason`` it is the traceback of the exception that is being handled.
    """
    error = sys.exception()
    reason = reason or (f"its boot failed.\n{explain(error)}" if error else "its boot failed.")
    site.tell(failed=reason[-MOST_OF_A_REASON:], status=status)
    raise SystemExit(Arbiter.WORKER_BOOT_ERROR if leave_with is None else leave_with) from None


class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's interface to whoever embeds it."""

    def __init__(self, child: Child) -> None:
        self.child = child
        super().__init__()

    def load_config(self) -> None:
        try:
            self.child.configure(self.cfg)
        except Refusal as refusal:
            give_up(self.child.site, str(refusal))
        except Exception:  # of a configuration file, or of gunicorn, which would print it
            give_up(self.child.site)

    def load(self) -> Any:
        from ..application import load

        accept_term()
        try:
            self.child.application = load(self.child.server)
        except Refusal as refusal:
            self.child.give_up(str(refusal))
        return self.child.application


class Child:
    """What the processes of this child share: the settings, and the hooks by which gunicorn calls us."""

    def __init__(
        self, start: dict[str, Any], settings: Settings, site: RemoteSite, pair: socket.socket
    ) -> None:
        self.settings = settings
        self.server: ServerSettings = settings.servers[start["alias"]]
        self.site = site
        self.pair = pair
        self.master = os.getpid()
        self.frozen = False
        self.application: Any = None
        self.has_begun = False
        self.signs: dict[int, mmap.mmap] = {}  # age of the worker -> a byte that says how far it has come
        self.forked: dict[int, float] = {}
        self.backoff = Backoff()
        self.wait = 0.0

    def configure(self, cfg: Any) -> None:
        """Set gunicorn's settings: its configuration file, OPTIONS over it, what is the site's over both."""
        options = self.read_config_file(cfg) | dict(self.server.options)
        options.pop("config", None)
        options.setdefault("preload_app", True)
        options.setdefault("default_proc_name", self.server.alias)
        for name, value in options.items():
            cfg.set(name, value)
        cfg.set("graceful_timeout", max(1, round(self.settings.stop_timeout)))
        cfg.set("control_socket_disable", True)
        if "logger_class" not in options:
            from .gunicorn_logging import project_logger

            cfg.set("logger_class", project_logger(cfg, options))
        for name in HOOKS_OF_OURS:
            cfg.set(name, _chain(getattr(self, name), getattr(cfg, name)))

    def read_config_file(self, cfg: Any) -> dict[str, Any]:
        location = self.server.options.get("config")
        if not location:
            return {}
        if location.startswith("python:"):
            values = vars(import_module(location.removeprefix("python:")))
        else:
            values = runpy.run_path(location.removeprefix("file:"), run_name="__config__")
        options = {name: value for name, value in values.items() if name in cfg.settings}
        wrong = [problem.line for problem in check_options(location, self.server.alias, options)]
        if wrong:
            raise Refusal("\n".join(wrong))
        return options

    # Hooks, in the order in which gunicorn calls them

    def on_starting(self, arbiter: Any) -> None:
        self.site.tell(workers=arbiter.cfg.workers)

    def pre_fork(self, arbiter: Any, worker: Worker) -> None:
        """Leave nothing open that two processes would share."""
        for connection in connections.all(initialized_only=True):
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()
        if not self.frozen:
            self.frozen = True
            self.warn_of_threads()
            gc.freeze()  # what is loaded by now stays shared between the workers
        self.signs[worker.age] = mmap.mmap(-1, 1)
        self.forked[worker.age] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # see accept_term

    def warn_of_threads(self) -> None:
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if names:
            logger.warning(
                "Threads started while the application was loaded do not live on in the workers: %s. "
                "Start them in a listener, or set preload_app to False.",
                ", ".join(names),
            )

    def post_fork(self, arbiter: Any, worker: Worker) -> None:
        from ..process import bus

        die_with(self.master, signal.SIGTERM)
        self.hold_back(arbiter)
        threading.Thread(target=self.watch_site, name="Site watch", daemon=True).start()
        self.site.play("worker")
        bus.site = self.site
        bus.roles = {"worker"}
        bus.stop_timeout = self.settings.stop_timeout * LAST_SECONDS

    def post_worker_init(self, worker: Worker) -> None:
        from ..process import bus

        accept_term()
        with Heartbeat(worker, bus, self.settings.ready_timeout):
            self.has_begun = True
            bus.logs_failed_start = False  # the site does, once for all workers
            try:
                bus.start()
            except ChannelFailures as failures:
                reasons = "\n".join(map(explain, failures.get_instances()))
                self.give_up(f"a start listener of worker {os.getpid()} failed.\n{reasons}", EX_SOFTWARE)
            if bus.state is bus.states.STARTED:
                self.warm_up()
                self.site.tell(ready=os.getpid())
                self.wait_at_gate(worker)
            else:
                self.tell_stopped(bus)
        self.sign = self.signs[worker.age]
        self.sign[0] = SERVING
        request_finished.connect(self.tell_answered)

    def hold_back(self, arbiter: Any) -> None:
        """Wait a while if the workers before this one did not come up."""
        wait = min(self.wait, arbiter.timeout / 2) if arbiter.timeout else self.wait
        # SIGTERM is blocked since the fork.
        if wait and signal.sigtimedwait([signal.SIGTERM], wait) is not None:
            raise SystemExit

    def warm_up(self) -> None:
        from ..warmup import warm_up

        try:
            warm_up(self.application, self.settings.warmup)
        except Refusal as refusal:
            self.give_up(str(refusal))

    def wait_at_gate(self, worker: Worker) -> None:
        """Answer nothing before the site says so, or rather, never if it says to leave."""
        poll = select.poll()
        poll.register(self.pair, select.POLLIN)
        while worker.alive and SERVE not in self.orders():
            poll.poll(100)  # a signal to leave does not end a poll, but is seen after it

    def orders(self) -> bytes:
        """Return what the site has ordered so far; it stays there for every process of this child."""
        try:
            return self.pair.recv(16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return b""

    def give_up(self, reason: str, status: int = 1) -> NoReturn:
        serves = SERVE in self.orders()
        give_up(self.site, reason, status, leave_with=FAILED if serves else None)

    def tell_answered(self, **kwargs: Any) -> None:
        """Tell the site of the first answer: whatever happens from now on, this code has worked."""
        request_finished.disconnect(self.tell_answered)
        self.sign[0] = PROVEN
        self.site.tell(answered=os.getpid())

    def worker_exit(self, arbiter: Any, worker: Worker) -> None:
        from ..process import bus

        if os.getpid() == self.master:  # gunicorn calls this there, too
            return
        if self.has_begun and bus.state is not bus.states.EXITING:
            self.answer_queue(worker)
            bus.exit()
            self.tell_stopped(bus)

    def answer_queue(self, worker: Worker) -> None:
        """Have a sync worker, which takes one connection at a time, answer those that wait for their turn."""
        if not isinstance(worker, SyncWorker) or DRAIN not in self.orders():
            return
        for listener in worker.sockets:
            most = queue_length(listener)  # each that is taken makes room for one more
            with contextlib.suppress(OSError):
                while most is None or most > 0:
                    worker.accept(listener)
                    most = most and most - 1

    def child_exit(self, arbiter: Any, worker: Worker) -> None:
        """In the master: a worker has ended, by itself or as it was told."""
        lifetime = time.monotonic() - self.forked.pop(worker.age)
        with self.signs.pop(worker.age) as sign:
            progress = sign[0]
        worked = progress == PROVEN or (progress == SERVING and lifetime > LIFETIME_OF_WORTH)
        self.wait = self.backoff.note(worked=worked)
        if progress == BOOTING:
            self.site.tell(lost=worker.pid)

    def tell_stopped(self, bus: Bus) -> None:
        if bus.failed:
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


def _chain(ours: Callable[..., None], theirs: Callable[..., Any]) -> Callable[..., None]:
    """Return a hook that runs ours and the user's.

    Theirs comes last, but before ours says that a worker is ready, and before it leaves.
    """

    def both(*arguments: Any) -> None:
        if ours.__name__ == "worker_exit":
            try:
                theirs(*arguments)
            finally:  # the stop listeners run, whatever theirs raised
                ours(*arguments)
        elif ours.__name__ == "post_worker_init":
            theirs(*arguments)
            ours(*arguments)
        else:
            ours(*arguments)
            theirs(*arguments)

    # gunicorn counts the parameters of a hook: *arguments will not do.
    def hook_of_one(one: Any) -> None:
        both(one)

    def hook_of_two(one: Any, other: Any) -> None:
        both(one, other)

    return hook_of_one if ours.__name__ in HOOKS_OF_ONE else hook_of_two
