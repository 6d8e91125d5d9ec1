"""The end of a process whose bus does not exit in time."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Generator
from typing import NoReturn

from .core import Core
from .ending import other_threads
from .failures import EX_SOFTWARE, ChannelFailures, Refusal
from .sleepers import Sleeper
from .states import State

FOLDER = os.path.dirname(__file__)

WITHOUT_GIL = 0.5
"""Seconds after the deadline at which `faulthandler` ends the process, in case C code holds the GIL."""

SHORTEST = 0.05
"""Seconds that an exit has at least, even if its deadline has passed when it begins."""

TO_REPORT = 2
"""Seconds that the report of what hangs may take."""


class Watchdog:
    """Ends the process, and names what hangs, when an exit has taken longer than the bus's ``stop_timeout``.

    The process ends with status 70, or by C code that holds the GIL half a second later with status 1.
    """

    def __init__(self, bus: Core) -> None:
        self._bus = bus
        self.begin()

    def begin(self) -> None:
        """Begin, also in a forked child."""
        self.expected: float | None = None
        """The moment of the signal that asked for an exit, until that begins, of `time.monotonic`."""
        self._watcher: Sleeper | None = None

    @contextlib.contextmanager
    def watch(self, deadline: float | None) -> Generator[None]:
        """End the process if the body runs past a moment, as of `time.monotonic`."""
        if deadline is None:
            yield
            return
        remaining = max(deadline - time.monotonic(), SHORTEST)
        timer = threading.Timer(remaining, self.end_hanging, [threading.get_ident()])
        timer.name = "Bus watchdog"
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no new thread while the interpreter ends
            timer.start()
        _end_without_gil(remaining + WITHOUT_GIL)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            timer.cancel()
            if timer.is_alive():
                timer.join()

    # An exit that a signal asks for

    def expect_exit(self) -> None:
        """Count the time of an exit from now on; a signal handler calls this before `Bus.defer`.

        If, say, a ``start`` listener keeps the thread in `block` from beginning that exit, the process ends
        as if the exit hung. The report names the listener only after `watch_exits`.
        """
        bus = self._bus
        if bus.stop_timeout is None or self.expected is not None or bus.state is State.EXITING:
            return
        if bus.exit_under_way.thread is None:
            self.expected = time.monotonic()
            _end_without_gil(bus.stop_timeout + WITHOUT_GIL)
            if self._watcher is not None:
                self._watcher.wake()

    def watch_exits(self) -> None:
        """Start the thread that reports what keeps the bus from beginning an expected exit."""
        if self._bus.stop_timeout is not None and self._watcher is None:
            self._watcher = Sleeper()
            thread = threading.Thread(target=self._watch_exits, args=[self._watcher], name="Bus exit watch")
            thread.daemon = True
            thread.start()

    def unwatch_exits(self) -> None:
        """End that thread."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.wake()

    def _watch_exits(self, watcher: Sleeper) -> None:
        while watcher.sleep(None) and self._watcher is watcher:
            if self.expected is not None and self._bus.stop_timeout is not None:
                remaining = self.expected + self._bus.stop_timeout - time.monotonic()
                self._bus.waiting.wait(lambda: not self._is_expected(), timeout=remaining)
                if self._is_expected():
                    self.end_hanging(self._bus.waiting.thread)

    def _is_expected(self) -> bool:
        return self.expected is not None and self._bus.exit_under_way.thread is None

    # The end

    def end_hanging(self, thread: int | None) -> NoReturn:
        """End the process with status 70, and name what hangs in a thread, given by its identity."""
        _end_without_gil(TO_REPORT)  # the report must not hang, either
        with contextlib.suppress(BaseException):
            self._bus.report_hanging("\n".join(self._describe(thread)))
        with contextlib.suppress(BaseException):
            self._bus.publish("abort")
        os._exit(EX_SOFTWARE)

    def _describe(self, thread: int | None) -> list[str]:
        """Return the lines of the report: a listener, a thread to be waited for, or a stack alone."""
        bus = self._bus
        lines = [
            *self._reasons(bus.exit_under_way.start_error),
            f"The bus did not exit within {bus.stop_timeout or 0:.3g} seconds.",
        ]
        if bus.called is not None:
            channel, listener = bus.called
            return [*lines, f"The {channel!r} listener {listener!r} hangs:", *_stack(thread)]
        if bus.state is State.EXITING and bus.exit_under_way.thread is None and (threads := other_threads()):
            for each in threads:
                lines += [f"The thread {each.name} hangs:", *_stack(each.ident)]
            return lines
        return [*lines, "The exit hangs:", *_stack(thread)]  # in a log listener, say

    def _reasons(self, start_error: BaseException | None) -> list[str]:
        """Return the reasons of a failed start that are not in the log; none if the start did not fail."""
        errors = [] if start_error is None else [start_error]
        if isinstance(start_error, ChannelFailures):
            errors = start_error.get_instances()
        if self._bus.plan("log"):
            errors = [error for error in errors if isinstance(error, Refusal)]
        return [
            str(error) if isinstance(error, Refusal) else f"The start failed: {error!r}" for error in errors
        ]


def _end_without_gil(seconds: float) -> None:
    """End the process after some seconds, also while C code holds the GIL: with stacks, and status 1."""
    with contextlib.suppress(RuntimeError, ValueError):  # the process can have no further thread
        faulthandler.dump_traceback_later(max(seconds, SHORTEST), exit=True, file=2)


def _stack(thread: int | None) -> list[str]:
    """Return the stack of a thread, from the function that the bus has called on."""
    frame = sys._current_frames().get(thread or 0)
    frames = traceback.extract_stack(frame) if frame else []
    called = 0
    for index in range(1, len(frames)):
        if _is_ours(frames[index - 1]) and not _is_ours(frames[index]):
            called = index
    return [line.rstrip() for line in traceback.format_list(frames[called:])]


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return os.path.dirname(frame.filename) == FOLDER
