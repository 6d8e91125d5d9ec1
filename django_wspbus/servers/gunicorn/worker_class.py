"""The worker classes of gunicorn: those that a site can run, and the patches that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

KNOWN = "It takes sync, gthread, gevent, or a subclass of one of their classes."
UNFIT = ("asgi", "tornado")
"""gunicorn's names of the classes with an event loop, in which the bus does not start."""

MORE_SLOTS = 32
"""Slots beside one for each thread: a worker has more threads while requests are stuck."""

SLOTS_OF_ONE_THREAD = 4
MOST_SLOTS = 256


def find_problem(worker_class: Any) -> str | None:
    """Return why a value of gunicorn's ``worker_class`` does not work here; None if it does."""
    if worker_class in UNFIT:
        return f"the worker class {worker_class!r} does not work under runbus. {KNOWN}"
    try:
        loaded = load(worker_class)
    except Exception as error:  # of whatever it imports; gunicorn's own has a traceback in its text
        last = str(error).strip("]\n ").splitlines()[-1:]
        return f"the worker class {worker_class!r} does not import: {''.join(last)}. {KNOWN}"
    if issubclass(loaded, SyncWorker | ThreadWorker) or is_gevent(loaded):
        return None
    return f"the worker class {worker_class!r} does not work under runbus. {KNOWN}"


def load(worker_class: Any) -> type[Any]:
    """Return the class that gunicorn would take."""
    from gunicorn.util import load_class

    loaded: type[Any] = load_class(worker_class)
    return loaded


def is_gevent(loaded: type[Any]) -> bool:
    return any(base.__module__ == "gunicorn.workers.ggevent" for base in loaded.__mro__)


def patch_for(worker_class: Any) -> str | None:
    """Return the patch to apply before anything of the project is imported: "gevent" or None."""
    return "gevent" if is_gevent(load(worker_class)) else None


def capacity_of(worker: Worker) -> tuple[int, int]:
    """Return how many threads answer requests (0: each connection has its own), and how many to record."""
    if isinstance(worker, ThreadWorker):
        threads = worker.cfg.threads
        return threads, threads + MORE_SLOTS
    if isinstance(worker, SyncWorker):
        return 1, SLOTS_OF_ONE_THREAD
    return 0, min(worker.cfg.worker_connections, MOST_SLOTS)


def calls_hooks(worker: Worker) -> bool:
    """Return whether a worker calls the hooks of requests; gevent_pywsgi has a server of its own instead."""
    return getattr(worker, "server_class", None) is None
