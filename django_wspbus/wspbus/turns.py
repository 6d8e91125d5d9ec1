"""The operations of one bus, which run one after another: in threads, in listeners, in signal handlers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .failures import ChannelFailures

Operation = Callable[[], None]


class Turns:
    """One operation at a time. ``uncaught`` is called with the failures of one whose caller did not wait.

    If a listener of an operation, or a signal handler that interrupts it, asks for another operation, that
    one runs when the first has ended.
    """

    def __init__(self, uncaught: Callable[[ChannelFailures], None]) -> None:
        self._uncaught = uncaught
        self.begin()

    def begin(self) -> None:
        """Begin, also in a forked child: the thread that holds the parent's lock may not be there."""
        self.lock = threading.RLock()
        """Held by the thread whose turn it is."""
        self._is_taken = False
        self._pending: deque[Operation] = deque()

    def go_on(self, lock: threading.RLock) -> None:
        """Take the turn that the parent process has, whose lock this thread holds."""
        self.lock = lock
        self._is_taken = True

    def take(self, operation: Operation) -> None:
        """Run an operation: after that of another thread, or at the end of our own."""
        try:
            with self.lock:
                if self._is_taken:  # we are in a listener, or in a signal handler that interrupted one
                    self._pending.append(operation)
                    return
                try:
                    self._run(operation)
                finally:
                    self._run_pending()
        finally:
            self._run_handed_over()

    def hand_over(self, operation: Operation) -> None:
        """Run an operation, or hand it over to the thread whose turn it is, without waiting for that."""
        self._pending.append(operation)
        self._run_handed_over()

    def wait(self) -> None:
        """Wait until no other thread has its turn."""
        with self.lock:
            pass
        self._run_handed_over()

    def is_pending(self, operation: Operation) -> bool:
        return operation in self._pending

    def _run(self, operation: Operation) -> None:
        self._is_taken = True
        try:
            operation()
        finally:
            self._is_taken = False

    def _run_pending(self) -> None:
        while self._pending:
            try:
                self._run(self._pending.popleft())
            except ChannelFailures as failures:
                if failures.channel != "start":  # which is reported where it fails
                    self._uncaught(failures)

    def _run_handed_over(self) -> None:
        """Run what others handed over to this thread, unless it is another thread's turn already."""
        while self._pending:
            lock = self.lock  # a listener may fork: the child gets another
            if not lock.acquire(blocking=False):
                return
            try:
                if self._is_taken:
                    return
                self._run_pending()
            finally:
                lock.release()
