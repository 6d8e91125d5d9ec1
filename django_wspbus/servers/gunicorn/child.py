"""gunicorn, in a child process: its master loads the application, its workers run the bus."""

from __future__ import annotations

import gc
import logging
import math
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import connections
from gunicorn.app.base import BaseApplication
from gunicorn.errors import HaltServer

from ... import conf
from ...children.backoff import Backoff
from ...children.spawn import start_again
from ...plugins.signals import is_ignored
from ...process.asking import RemoteSite
from ...project.threads import ADVICE, foreign_threads
from ...successor.program import die_with
from ...wspbus import Refusal
from .server import GunicornServer
from .worker import BOOTING, PROVEN, SERVING, WorkerProcess, accept_term, give_up
from .worker_class import patch_for

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from ...conf import ServerSettings, Settings

logger = logging.getLogger("django_wspbus")

HOOKS = {
    "on_starting": 1,
    "when_ready": 1,
    "pre_fork": 2,
    "post_fork": 2,
    "post_worker_init": 1,
    "pre_request": 2,
    "post_request": 4,
    "worker_abort": 1,
    "worker_exit": 2,
    "child_exit": 2,
}
"""Ours, each with the number of arguments that gunicorn gives it."""
LIFETIME_OF_WORTH = 1
"""A worker that lived for this many seconds counts as healthy, also if it has answered nothing."""


def run(start: dict[str, Any], pair: socket.socket) -> None:
    """Serve until told to stop; what is wrong before that is sent to the site, and not printed."""
    application = make_application(start, pair)
    os.register_at_fork(after_in_parent=accept_term)
    try:
        application.run()
    except HaltServer as halt:  # a worker failed to boot while gunicorn was stopping already
        raise SystemExit(halt.exit_status) from None


def check(start: dict[str, Any], pair: socket.socket) -> None:
    """Load all that `run` would load, tell the site how that went, and wait to be ended."""
    application = make_application(start, pair)
    application.wsgi()
    application.child.site.tell(workers=0)
    while True:
        signal.pause()


def make_application(start: dict[str, Any], pair: socket.socket) -> Application:
    site = RemoteSite(pair, "master")
    try:
        settings, problems = conf.read(start["overrides"])
        if settings is None:
            raise Refusal("\n".join(problem.line for problem in problems if problem.is_error))
        if start["alias"] not in settings.servers:
            raise Refusal(
                f"the settings on disk have no server {start['alias']!r} any more: "
                "restart the site if it is to go."
            )
        return Application(Child(start, settings, site, pair))
    except Refusal as refusal:
        give_up(site, str(refusal))
    except Exception:  # the project's own code: anything may come
        give_up(site)


class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's interface to whoever embeds it."""

    def __init__(self, child: Child) -> None:
        self.child = child
        super().__init__()

    def load_config(self) -> None:
        try:
            self.child.configure(self.cfg)
            patch = patch_for(self.cfg.settings["worker_class"].get())
        except Refusal as refusal:
            give_up(self.child.site, str(refusal))
        except Exception:  # of a configuration file, or of gunicorn, which would print it
            give_up(self.child.site)
        if patch != self.child.start["patch"]:
            start_again(self.child.start, self.child.pair, patch)

    def load(self) -> Any:
        from ...application.loading import load

        accept_term()
        try:
            self.child.application = load(self.child.server, self.child.settings.static_files)
        except Refusal as refusal:
            give_up(self.child.site, str(refusal), pair=self.child.pair)
        return self.child.application


class Child:
    """The common state of the processes of this child: settings, and the hooks by which gunicorn calls us."""

    def __init__(
        self, start: dict[str, Any], settings: Settings, site: RemoteSite, pair: socket.socket
    ) -> None:
        self.settings = settings
        self.start = start
        self.since = time.time_ns()
        self.server: ServerSettings = settings.servers[start["alias"]]
        self.site = site
        self.pair = pair
        self.master = os.getpid()
        self.frozen = False
        self.application: Any = None
        self.process: WorkerProcess | None = None  # in a worker
        self.signs: dict[int, mmap.mmap] = {}  # age of the worker -> a byte that says how far it has come
        self.forked: dict[int, float] = {}
        self.backoff = Backoff()
        self.wait = 0.0

    def configure(self, cfg: Any) -> None:
        """Set gunicorn's settings: its configuration file, OPTIONS over it, what is the site's over both."""
        options = GunicornServer.effective_options(self.server, self.settings)
        options.pop("config", None)
        options.setdefault("default_proc_name", self.server.alias)
        for name, value in options.items():
            cfg.set(name, value)
        # The site ends the child before that, as its phases say; this is for a signal to gunicorn alone.
        cfg.set("graceful_timeout", math.ceil(self.settings.stop_timeout) + 1)
        cfg.set("control_socket_disable", True)
        if conf.is_debug():  # a worker that a debugger holds must not be taken for one that hangs
            cfg.set("timeout", 0)
        if "logger_class" not in options:
            from .logging import project_logger

            cfg.set("logger_class", project_logger(cfg, options))
        for name in HOOKS:
            cfg.set(name, _chain(getattr(self, name), getattr(cfg, name)))

    # Hooks, in the order in which gunicorn calls them

    def on_starting(self, arbiter: Any) -> None:
        # Not before: Twisted removes these variables when the project imports it, and gunicorn would then
        # bind an address of its own.
        os.environ.update(LISTEN_FDS=str(self.start["sockets"]), LISTEN_PID=str(os.getpid()))
        self.site.tell(workers=arbiter.cfg.workers)

    def when_ready(self, arbiter: Any) -> None:
        ignore_signals()

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
        if names := foreign_threads():
            logger.warning("Threads in gunicorn's master end as it forks: %s. %s", ", ".join(names), ADVICE)

    def post_fork(self, arbiter: Any, worker: Worker) -> None:
        die_with(self.master, signal.SIGTERM)
        self.hold_back(arbiter)
        self.process = WorkerProcess(self.settings, self.site, self.pair, self.signs[worker.age])
        if "patience" in self.start:
            self.process.reload_on_change(
                since=self.start.get("since", self.since),
                seen=self.start.get("seen", {}),
                repeats=self.start.get("repeats", {}),
                announces=self.start.get("announces", False) and worker.age == 1,
            )

    def hold_back(self, arbiter: Any) -> None:
        """Wait a while if the workers before this one did not come up."""
        wait = min(self.wait, arbiter.timeout / 2) if arbiter.timeout else self.wait
        # SIGTERM is blocked since the fork.
        if wait and signal.sigtimedwait([signal.SIGTERM], wait) is not None:
            raise SystemExit

    def post_worker_init(self, worker: Worker) -> None:
        assert self.process is not None
        ignore_signals()
        self.process.boot(worker, self.application)

    def pre_request(self, worker: Worker, request: Any) -> None:
        assert self.process is not None
        self.process.note_request(request)

    def post_request(self, worker: Worker, request: Any, environ: Any, response: Any) -> None:
        assert self.process is not None
        self.process.forget_request(request)

    def worker_abort(self, worker: Worker) -> None:
        assert self.process is not None
        self.process.note_abort()

    def worker_exit(self, arbiter: Any, worker: Worker) -> None:
        if self.process is not None:  # gunicorn calls this in the master, too
            self.process.leave(worker)

    def child_exit(self, arbiter: Any, worker: Worker) -> None:
        """In the master: a worker has ended, by itself or as it was told."""
        lifetime = time.monotonic() - self.forked.pop(worker.age)
        with self.signs.pop(worker.age) as sign:
            progress = sign[0]
        worked = progress == PROVEN or (progress == SERVING and lifetime > LIFETIME_OF_WORTH)
        self.wait = self.backoff.note(worked=worked)
        if progress == BOOTING:
            self.site.tell(lost=worker.pid)


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

    def hook_of_four(one: Any, other: Any, third: Any, last: Any) -> None:
        both(one, other, third, last)

    hooks: dict[int, Callable[..., None]] = {1: hook_of_one, 2: hook_of_two, 4: hook_of_four}
    return hooks[HOOKS[ours.__name__]]


def ignore_signals() -> None:
    """Ignore hang-ups, and what this process ignored from its start: such signals are for the site process.

    gunicorn has its own handlers by now. It may not ignore SIGTERM, by which the site ends it.
    """
    for name in ("SIGHUP", *IGNORED):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


IGNORED = [name for name in ("SIGINT", "SIGUSR1", "SIGUSR2") if is_ignored(name)]
