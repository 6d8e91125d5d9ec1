"""gunicorn's hooks, in its master and in its workers."""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import connections

from ... import conf
from ...application.client_progress import ClientProgress
from ...children.spawn import StartedChild
from ...development.debuggers import holds_thread
from ...fleet.version import version_of_code
from ...process.asking import RemoteSite
from ...process.bus import bus
from ...process.log_memory import log_memory
from ...process.record import Record, Stage
from ...process.reports import Died, Expected, Report, RetirementPolicy
from ...project.threads import ADVICE, foreign_threads
from ...successor.program import die_with
from ...system.backoff import HEALTHY_LIFETIME, Backoff
from .greenlets import stacks_of
from .log_files import reopening_logger
from .retirement import check_timeout_in_force, take_policy
from .server import GunicornServer
from .signals import hold_signals, ignore_signals
from .worker import WorkerProcess
from .worker_class import calls_hooks, capacity_of

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from ...conf import ServerSettings, Settings

logger = logging.getLogger("django_wspbus")

MEMORY = "/dev/shm"
"""A folder in memory, for the files by which gunicorn's master sees that its workers live."""

HOOKS = {
    "on_starting": 1,
    "when_ready": 1,
    "pre_fork": 2,
    "post_fork": 2,
    "post_worker_init": 1,
    "worker_abort": 1,
    "worker_exit": 2,
    "child_exit": 2,
}
"""The hooks of this package, each with the number of arguments that gunicorn passes."""


class Hooks:
    """The hooks by which gunicorn calls this package, and the state that the processes of a child share."""

    def __init__(self, child: StartedChild, settings: Settings, site: RemoteSite) -> None:
        self.child = child
        self.settings = settings
        self.server: ServerSettings = settings.servers[child.start.alias]
        self.site = site
        self.master = os.getpid()
        self.frozen = False
        self.application: Any = None
        self.process: WorkerProcess | None = None  # in a worker
        self.policy = RetirementPolicy()
        self.record: Record | None = None  # of the master, in the master
        self.records: dict[int, Record] = {}  # age of the worker -> its record
        self.forked: dict[int, float] = {}
        self.backoff = Backoff()
        self.wait = 0.0

    def configure(self, cfg: Any) -> None:
        """Set gunicorn's settings: OPTIONS override its configuration file, and the site overrides both."""
        options = GunicornServer.effective_options(self.server, self.settings)
        options.pop("config", None)
        options.setdefault("default_proc_name", self.server.alias)
        if os.access(MEMORY, os.W_OK):  # else gunicorn needs a disk that is neither full nor read-only
            options.setdefault("worker_tmp_dir", MEMORY)
        for name, value in options.items():
            cfg.set(name, value)
        if self.child.start.workers is not None:
            cfg.set("workers", self.child.start.workers)
        # The site ends the child before that, as its phases say; this is for a signal to gunicorn alone.
        longest = max(self.settings.graceful_timeout, self.settings.stop_timeout)
        cfg.set("graceful_timeout", math.ceil(longest) + 1)
        self.policy = take_policy(self.server, cfg)
        cfg.set("control_socket_disable", True)
        if conf.is_debug():  # gunicorn would kill a worker that stands in a debugger
            cfg.set("timeout", 0)
        if "logger_class" not in options:
            from .logging import project_logger

            cfg.set("logger_class", project_logger(cfg, options))
        cfg.set("logger_class", reopening_logger(cfg.logger_class, self.child.start.outputs, self.report))
        for name in HOOKS:
            cfg.set(name, _chain(getattr(self, name), getattr(cfg, name)))

    def report(self, report: Report) -> None:
        """Send a report of this process, the master or a worker, to the site."""
        site = self.site if self.process is None else self.process.site
        site.report(report)

    # The number of workers

    def count_workers(self, configured: int) -> int:
        """Return how many workers there are to be: wanted ones, one that stands by, and those that retire."""
        wanted = self.record.wanted if self.record is not None else 0
        retiring = sum(record.retiring for record in self.records.values())
        return int((wanted or configured) + self.policy.is_active + retiring)

    def retires(self, worker: Worker) -> bool:
        record = self.records.get(worker.age)
        return record is not None and bool(record.retiring)

    # Hooks, in the order in which gunicorn calls them

    def on_starting(self, arbiter: Any) -> None:
        # Not before: Twisted removes these variables when the project imports it, and gunicorn would bind an
        # address of its own.
        os.environ.update(LISTEN_FDS=str(self.child.sockets), LISTEN_PID=str(os.getpid()))
        self.record = Record.make(0)
        self.record.pid = os.getpid()
        self.record.write_stacks_on_signal(interrupts=True)
        log_memory.keep(self.record.ring.write)
        self.site.announce_role("master", self.record)
        for problem in check_timeout_in_force(self.server, arbiter.cfg):
            logger.warning("%s", problem.line)
        version = version_of_code(self.settings.fleet)
        self.site.report(Expected(arbiter.cfg.workers, self.policy, bool(bus.of_role("leader")), version))

    def when_ready(self, arbiter: Any) -> None:
        ignore_signals()

    def pre_fork(self, arbiter: Any, worker: Worker) -> None:
        """Close the connections that two processes would share, and freeze the loaded objects once."""
        for connection in connections.all(initialized_only=True):
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()
        if not self.frozen:
            self.frozen = True
            self.warn_of_threads()
            gc.freeze()  # the workers share the memory of all that is loaded by now
        threads, slots = capacity_of(worker)
        self.records[worker.age] = worker.record = record = Record.make(slots)
        record.threads = threads
        self.forked[worker.age] = time.monotonic()
        hold_signals()

    def warn_of_threads(self) -> None:
        if names := foreign_threads():
            logger.warning("Threads in gunicorn's master end as it forks: %s. %s", ", ".join(names), ADVICE)

    def post_fork(self, arbiter: Any, worker: Worker) -> None:
        die_with(self.master, signal.SIGTERM)
        record = self.records.pop(worker.age)
        for other in (self.record, *self.records.values()):
            if other is not None:
                other.close()
        self.record, self.records = None, {}
        worker.cfg.set("graceful_timeout", math.ceil(self.settings.graceful_timeout))
        self.hold_back(arbiter)
        record.write_stacks_on_signal(stacks_of(record) if self.child.start.patch == "gevent" else None)
        self.process = WorkerProcess(self.settings, self.child.pair, record)
        if self.child.start.watches_files:
            self.process.reload_on_change()

    def hold_back(self, arbiter: Any) -> None:
        """Wait a while if the workers before this one did not boot."""
        wait = min(self.wait, arbiter.timeout / 2) if arbiter.timeout else self.wait
        # SIGTERM is blocked since the fork.
        if wait and signal.sigtimedwait([signal.SIGTERM], wait) is not None:
            raise SystemExit

    def post_worker_init(self, worker: Worker) -> None:
        assert self.process is not None
        ignore_signals()
        process = self.process
        requests = process.requests
        if calls_hooks(worker):
            worker.wsgi = requests.follow(worker.wsgi)
            worker.cfg.set("post_request", ending_requests(requests.end, worker.cfg))
        else:
            worker.wsgi = requests.record(worker.wsgi)
        process.exit.on_drain = getattr(worker, "accept_all", process.exit.on_drain)
        if not self.policy.is_active or process.stand_by(worker):
            process.boot(worker, self.application)
        if self.policy.request_timeout is not None:
            note_stuck = getattr(worker, "replace_stuck_threads", lambda stuck: None)
            is_debugged = holds_thread if conf.is_debug() else lambda thread: False
            ClientProgress(process.requests, self.policy.request_timeout, note_stuck, is_debugged).start()

    def worker_abort(self, worker: Worker) -> None:
        assert self.process is not None
        self.process.exit.note_abort()

    def worker_exit(self, arbiter: Any, worker: Worker) -> None:
        if self.process is not None:  # gunicorn calls this in the master, too
            self.process.exit.run(worker)

    def child_exit(self, arbiter: Any, worker: Worker) -> None:
        """In the master: record that a worker has ended, and set the back-off of the next one."""
        now = time.monotonic()
        self.forked.pop(worker.age)
        record = self.records.pop(worker.age)
        stage, served_from = record.stage, record.served_from
        record.close()
        if stage != Stage.STANDBY:
            lived = stage == Stage.SERVING and now - served_from > HEALTHY_LIFETIME
            self.wait = self.backoff.note(worked=lived or stage == Stage.PROVEN)
        if stage in (Stage.BOOTING, Stage.READY):
            self.site.report(Died(worker.pid))


def _chain(ours: Callable[..., None], theirs: Callable[..., Any]) -> Callable[..., None]:
    """Return a hook that runs ours and the user's.

    The user's hook runs last, but before ours reports that a worker is ready or runs its stop listeners.
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

    return hook_of_one if HOOKS[ours.__name__] == 1 else hook_of_two


def ending_requests(end: Callable[[Any], None], cfg: Any) -> Callable[..., None]:
    """Return the hook ``post_request``, which ends a request and calls the user's hook."""
    theirs = cfg.post_request

    def post_request(worker: Any, request: Any, environ: Any, response: Any) -> None:
        end(environ)

    def post_request_and_theirs(worker: Any, request: Any, environ: Any, response: Any) -> None:
        end(environ)
        theirs(worker, request, environ, response)

    # gunicorn's own hook is empty.
    return post_request if theirs is cfg.settings["post_request"].default else post_request_and_theirs
