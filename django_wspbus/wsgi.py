"""The adapter for sites that another program serves: Apache, uWSGI, plain gunicorn, runserver."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from django.core import wsgi

from .application.interfaces import Application, Environ
from .fleet.foreign import join
from .fleet.member import FleetMember
from .health.checks import name_of
from .plugins.monitor import Monitor
from .process.bus import ProcessBus, bus
from .wspbus import Lifespan, Listener

TIME_TO_LEAVE = 1.0
"""Seconds for the last messages of a process that ends."""


def get_wsgi_application() -> WorkerApplication:
    """Return Django's WSGI application; it runs the bus in each process that serves it.

    Use it in wsgi.py in place of ``django.core.wsgi.get_wsgi_application``. Under ``runbus``, which runs the
    bus itself, it is the same as Django's.
    """
    return WorkerApplication(wsgi.get_wsgi_application(), bus)


class WorkerApplication:
    """Starts the bus as a worker at the first request of a process, and exits it when the process ends.

    The bus does not start when the application is loaded, because the process may only fork, as gunicorn's
    master does with ``--preload``. If the start fails, the request fails, and the next request tries again.
    """

    def __init__(self, application: Application, bus: ProcessBus) -> None:
        self.application = application
        self.bus = bus
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._exiting = threading.Lock()
        self._has_exited = False
        self._member: FleetMember | None = None
        self._serving: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._pid != os.getpid():
            self._start()
        self._serving.add(threading.current_thread())
        return self.application(environ, start_response)

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            if "worker" not in (self.bus.roles or ()):  # else runbus has started it
                self.bus.roles = {"worker"}
                before = self.bus.fleet
                try:
                    self._member = join(self.bus)
                    self.bus.start()
                except BaseException:
                    self.bus.roles = frozenset()
                    self._leave()
                    self.bus.fleet = before
                    raise
                if self._member is not None:
                    self._member.announce()
                self._exit_with_the_process(os.getpid())
                self._warn_of_role("site")
                self._warn_of_role("leader")
            self._pid = os.getpid()

    def _warn_of_role(self, role: str) -> None:
        """Log the listeners of a role that no process plays if another program serves."""
        names = dict.fromkeys(_name(callback) for _, callback in self.bus.of_role(role))
        if names:
            self.bus.log(
                f"Under this server no process plays the role {role!r}, so these listeners never run: "
                f"{', '.join(names)}. Serve with `manage.py runbus`, or subscribe them for another role.",
                level=30,
            )

    def _exit_with_the_process(self, pid: int) -> None:
        """Exit the bus when this process is about to end, in any server program."""
        self._has_exited = False  # the bus of the forking parent may have exited
        # `atexit` alone is too late: before it, the interpreter waits for all threads except daemon threads,
        # and a listener may have started a thread that only a stop listener ends. So a thread waits for the
        # end of the main thread. It must be a daemon thread, because servers such as CherryPy wait for all
        # others in their main thread. In a child of multiprocessing it must not be one, because such a child
        # calls no atexit handlers.
        is_child = multiprocessing.parent_process() is not None
        thread = threading.Thread(target=self._await_end, args=(pid,), name="Bus exit", daemon=not is_child)
        thread.start()
        atexit.register(self._exit, pid)
        # In a subinterpreter of mod_wsgi neither the main thread ends nor atexit handlers run.
        subscribe = getattr(sys.modules.get("mod_wsgi"), "subscribe_shutdown", None)
        if subscribe is not None:
            subscribe(lambda *args, **kwargs: self._exit(pid))

    def _await_end(self, pid: int) -> None:
        threading.main_thread().join()
        for thread in set(self._serving):  # the bus must not exit while they answer requests
            if not thread.daemon:
                thread.join()
        self._exit(pid)

    def _exit(self, pid: int) -> None:
        """Exit the bus once. If another thread is exiting it, wait for that."""
        if pid != os.getpid():
            return
        with self._exiting:
            if not self._has_exited:
                self._has_exited = True
                try:
                    self.bus.exit()
                finally:
                    self._leave()

    def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            member.close(TIME_TO_LEAVE)


def _name(listener: Listener) -> str:
    """Return the dotted name of the project's function that a listener calls."""
    owner = getattr(listener, "__self__", None)
    if isinstance(owner, Lifespan):
        return name_of(owner)
    return name_of(owner.callback if isinstance(owner, Monitor) else listener)
