"""The end of a process: the exit of its bus, its last threads, and the program that takes its place."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator
from typing import NoReturn

from .failures import mark_as_failed
from .states import State


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None


STARTUP_DIRECTORY = _working_directory()
"""The working directory at the import, because modules may change it later; None: it was removed."""


class Exit:
    """The exit of a bus, since its last start. Moments are in seconds of `time.monotonic`."""

    def __init__(self) -> None:
        self.is_asked = False
        self.thread: int | None = None
        """The identity of the thread that runs its listeners, while it does."""
        self.began: float | None = None
        self.deadline: float | None = None
        """The moment at which the watchdog ends the process; None without ``stop_timeout``."""
        self.has_failed = False
        """True if a listener failed during the exit, or during the start that led to it."""
        self.start_error: BaseException | None = None
        """The error of the failed start that led to it; None if another process reports that error."""
        self.interruptions: list[BaseException] = []
        """SystemExit and KeyboardInterrupt that listeners raised, for the end of the exit."""

    def begin(self, timeout: float | None, expected: float | None) -> None:
        """Record that this thread begins the exit. ``expected``: when a signal asked for it, or None."""
        self.is_asked = True
        self.interruptions = []
        self.thread = threading.get_ident()
        self.began = time.monotonic()
        if timeout is not None:
            self.deadline = (expected or self.began) + timeout

    @contextlib.contextmanager
    def put_off(self) -> Generator[None]:
        """Keep SystemExit and KeyboardInterrupt for the end of the exit."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            self.interruptions.append(error)

    def raise_interruption(self) -> None:
        """Raise the first interruption that was put off."""
        for interruption in self.interruptions:
            if self.has_failed:
                mark_as_failed(interruption)
            raise interruption


class AtExit:
    """Exits a bus when the main thread ends without having done so, and warns of it.

    ``exit`` and ``state``: functions that make the bus exit, and return its state.
    """

    def __init__(self, exit: Callable[[], None], state: Callable[[], State]) -> None:  # noqa: A002
        self._exit_bus = exit
        self._state = state

    def register(self) -> None:
        self.unregister()
        atexit.register(self._exit, os.getpid())

    def unregister(self) -> None:
        atexit.unregister(self._exit)

    def _exit(self, pid: int) -> None:
        if pid != os.getpid() or self._state() is State.EXITING:
            return
        try:
            warnings.warn(
                f"The main thread is exiting, but the Bus is in the {self._state()!r} state; "
                "shutting it down automatically now. You must either call bus.block() after start(), "
                "or call bus.exit() before the main thread exits.",
                RuntimeWarning,
                stacklevel=1,
            )
        finally:  # a warning may be an error
            self._exit_bus()


def other_threads() -> list[threading.Thread]:
    """Return the threads to wait for before the process ends."""
    skipped = (threading.current_thread(), threading.main_thread())
    return [thread for thread in threading.enumerate() if thread not in skipped and not thread.daemon]


def join_other_threads(log: Callable[[str], None]) -> None:
    """Wait for all threads that are not daemons."""
    log("Waiting for child threads to terminate...")
    while threads := other_threads():  # they may start others
        log(f"Waiting for thread {threads[0].name}.")
        threads[0].join()


def execute_anew(log: Callable[[str], None]) -> NoReturn:
    """Execute the command line of this process again, in the directory in which it was typed."""
    arguments = [sys.executable, *sys.orig_argv[1:]]
    if STARTUP_DIRECTORY is not None:
        os.chdir(STARTUP_DIRECTORY)
    log(f"Re-spawning {' '.join(arguments)}")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None
            stream.flush()
    os.execv(sys.executable, arguments)
