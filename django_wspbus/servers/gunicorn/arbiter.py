"""gunicorn's master and threads under a site.

What overrides the inside of gunicorn stands here. Others only use it: `hooks` reads ``worker.age`` and
``arbiter.timeout`` and sets ``worker.wsgi``; `log_files` replaces ``Logger.reopen_files`` and reads
``Logger.logfile``. The test of this module fails where a version differs in any of them.
"""

from __future__ import annotations

import contextlib
import signal
import time
from _thread import start_new_thread
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from .worker_class import MORE_SLOTS

if TYPE_CHECKING:
    from .hooks import Hooks


class SiteArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Runs the workers that the site wants, those that stand by, and those that retire.

    gunicorn would end the oldest worker when there are too many; here the site ends a worker of its choice.
    """

    def __init__(self, app: Any, hooks: Hooks) -> None:
        self.hooks = hooks
        super().__init__(app)

    def setup(self, app: Any) -> None:
        super().setup(app)
        worker_class: type[Any] = self.cfg.worker_class
        if issubclass(worker_class, ThreadWorker):
            names = {"__module__": worker_class.__module__, "__qualname__": worker_class.__qualname__}
            self.worker_class = type(worker_class.__name__, (SiteThreads, worker_class), names)

    def manage_workers(self) -> None:
        number = max(self.hooks.count_workers(self.cfg.workers), len(self.WORKERS))
        if number != self._get_num_workers():  # setting it calls a hook
            self._set_num_workers(number)
        super().manage_workers()

    def murder_workers(self) -> None:
        """Kill workers that hang, but none that retires with threads: the site limits its time."""
        for worker in list(self.WORKERS.values()):
            if isinstance(worker, ThreadWorker) and self.hooks.retires(worker):
                worker.tmp.notify()
        super().murder_workers()

    def stop(self, graceful: bool = True) -> None:
        # The main loop, which acts on signals, has ended; workers may still answer for minutes.
        signal.signal(signal.SIGUSR1, lambda *_: start_new_thread(self.log.reopen_files, ()))
        super().stop(graceful)

    def handle_ttin(self) -> None:
        self.log.warning("The site decides on the number of workers: SIGTTIN has no effect.")

    def handle_ttou(self) -> None:
        self.log.warning("The site decides on the number of workers: SIGTTOU has no effect.")


class SiteThreads(ThreadWorker):  # type: ignore[misc]
    """The part of a worker with threads that accepts connections: only while one of its threads is free.

    gunicorn would accept up to ``worker_connections``, which another worker might answer at once, and which
    are reset if this one is killed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._added_threads = 0
        self._most_connections = 0
        self._accepts_all = False
        super().__init__(*args, **kwargs)

    @property
    def worker_connections(self) -> int:
        if self._accepts_all:
            return self._most_connections
        threads = self.cfg.threads + self._added_threads
        waiting = len(self.keepalived_conns) + len(self.pending_conns)
        return int(min(self._most_connections, threads + waiting))

    @worker_connections.setter
    def worker_connections(self, number: int) -> None:
        self._most_connections = number

    def accept_all(self) -> None:
        """Accept the clients in the queue although no thread is free: no other worker will answer them."""
        self._accepts_all = True
        self.method_queue.defer(_do_nothing)  # wakes the main loop

    def notify(self) -> None:
        """Give a sign of life, in each turn of the main loop, to gunicorn's master and to the site."""
        super().notify()
        record = self.record
        record.beat = time.monotonic()
        record.connections = self.nr_conns

    def replace_stuck_threads(self, stuck: int) -> None:
        """Add one thread for each request that is stuck, to answer connections accepted already."""
        added, pool = min(stuck, MORE_SLOTS), self.tpool
        if added <= self._added_threads or not isinstance(pool, ThreadPoolExecutor):
            return
        pool._max_workers += added - self._added_threads
        self._added_threads = added
        with contextlib.suppress(RuntimeError):  # the worker is about to end
            # A pool starts a thread when it is given work, unless it counts more idle threads than there are.
            while len(pool._threads) < pool._max_workers:
                pool.submit(_do_nothing)
            self.method_queue.defer(_do_nothing)  # wakes the main loop, which may accept again


def _do_nothing() -> None: ...
