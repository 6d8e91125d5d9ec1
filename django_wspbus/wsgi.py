"""The adapter for sites that another program starts: Apache, uWSGI, plain gunicorn, runserver."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from django.core import wsgi

from .process import ProcessBus, bus

Environ = dict[str, Any]


def get_wsgi_application() -> WorkerApplication:
    """Return Django's WSGI application, with the bus running in each process that serves it.

    Use it in wsgi.py in place of ``django.core.wsgi.get_wsgi_application``. Under ``runbus`` it
    adds nothing.
    """
    return WorkerApplication(wsgi.get_wsgi_application(), bus)


class WorkerApplication:
    """Starts the bus as a worker before the first request of a process, and exits it when that ends.

    Not before: an application may be loaded in a process that only forks, as gunicorn's master does
    with ``--preload``. A start that fails fails the request, and is tried again by the next.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]], bus: ProcessBus) -> None:
        self.application = application
        self.bus = bus
        self._lock = threading.Lock()
        self._pid: int | None = None

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._pid != os.getpid():
            self._start()
        return self.application(environ, start_response)

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            if "worker" not in (self.bus.roles or ()):  # else runbus has started it
                self.bus.roles = {"worker"}
                try:
                    self.bus.start()
                except BaseException:
                    self.bus.roles = frozenset()
                    raise
                atexit.register(self._leave, os.getpid())
            self._pid = os.getpid()

    def _leave(self, pid: int) -> None:
        if pid == os.getpid():
            self.bus.exit()
