"""Threads that sleep until another thread, or a signal, wakes them; no thread wakes up to poll."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import threading
from _thread import allocate_lock
from typing import ClassVar

LONGEST_POLL = 2**31 - 1


class Sleeper:
    """A thread that sleeps until another, or a signal handler on top of anything, wakes it."""

    def __init__(self) -> None:
        self._lock = allocate_lock()  # a Condition is Python code, which a handler must not enter twice
        self._lock.acquire()

    def listen(self) -> None:
        """Note each wake-up from now on."""

    def sleep(self, seconds: float | None) -> bool:
        """Return whether it was woken."""
        return self._lock.acquire(timeout=-1 if seconds is None else seconds)

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # woken already
            self._lock.release()

    def close(self) -> None:
        """Release it: its thread does not sleep on it any more."""


class MainSleeper(Sleeper):
    """The main thread: it sleeps on a socket, to which the interpreter writes when a signal comes.

    On a lock it would sleep through one that comes after the interpreter has looked for signals and
    before the lock sleeps.
    """

    # It stays open, as a thread may wake it late; a forked child gets one of its own. A pair of sockets and
    # no pipe, as another process may peek into it.
    _pipe: ClassVar[tuple[int, int] | None] = None
    _previous: ClassVar[int] = -1  # where the interpreter wrote to before

    def __init__(self) -> None:
        self._took_over = False

    @classmethod
    def _open(cls) -> tuple[int, int]:
        if cls._pipe is None:
            reader, writer = socket.socketpair()
            cls._pipe = reader.detach(), writer.detach()
            for end in cls._pipe:
                os.set_blocking(end, False)
        return cls._pipe

    @classmethod
    def take_over(cls) -> bool:
        """Make the interpreter write to this socket; return whether it did not before."""
        writer = cls._open()[1]
        current = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if current != writer:
            cls._previous = current
        return current != writer

    @classmethod
    def give_back(cls) -> None:
        """Undo `take_over`."""
        _set_wakeup_fd(cls._open()[1], cls._previous)

    def listen(self) -> None:
        self._took_over = self.take_over() or self._took_over

    def sleep(self, seconds: float | None) -> bool:
        reader = self._open()[0]
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        if not poll.poll(None if seconds is None else min(math.ceil(seconds * 1000), LONGEST_POLL)):
            return False
        self._drain(reader)
        return True

    def _drain(self, reader: int) -> None:
        with contextlib.suppress(BlockingIOError):  # a wait in a signal handler has read it
            _write(self._previous, os.read(reader, 4096).strip(b"\0"))  # the numbers of the signals

    def wake(self) -> None:
        if self._pipe is not None:
            _write(self._pipe[1], b"\0")

    def close(self) -> None:
        if self._took_over:
            self.give_back()
            self._drain(self._open()[0])
        else:
            self.wake()  # the wait that this one is nested in: what it read was for both

    @classmethod
    def forget(cls) -> None:
        """In a forked child: leave the pipe to the parent."""
        if cls._pipe is not None:
            _set_wakeup_fd(cls._pipe[1], -1)
            for end in cls._pipe:
                os.close(end)
            cls._pipe, cls._previous = None, -1


def make_sleeper() -> Sleeper:
    """Return a sleeper for this thread, which listens."""
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(OSError, ValueError):  # too many open files; not the main interpreter
            sleeper = MainSleeper()
            sleeper.listen()
            return sleeper
    return Sleeper()


def keep_signals() -> int:
    """Make the interpreter write the numbers of all signals to a socket; return the other end of it.

    The main thread reads them whenever it waits. Another process may peek into the socket: the
    interpreter writes without the GIL. To be called in the main thread.
    """
    MainSleeper.take_over()
    return MainSleeper._open()[0]


def release_signals() -> None:
    """Undo `keep_signals`."""
    MainSleeper.give_back()


def _write(descriptor: int, data: bytes) -> None:
    if data and descriptor != -1:
        with contextlib.suppress(OSError):  # full: its reader is awake; or closed meanwhile
            os.write(descriptor, data)


def _set_wakeup_fd(ours: int, previous: int) -> None:
    """Give the interpreter back the descriptor that it had, unless a handler has changed it since."""
    with contextlib.suppress(ValueError, OSError):  # closed since
        current = signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
        if current != ours:
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
