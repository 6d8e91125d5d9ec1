"""The stacks of a process: the process writes them to a file at a signal, and another process waits for them.

At the first of two signals a handler in Python writes them, which needs the GIL. At the second one
faulthandler does, from C, which works while a C function holds the GIL. Without that it is not safe: it reads
the frames of threads that run meanwhile, and now and then that crashes the process. So the second signal
follows only if the first one has had no effect.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from collections.abc import Callable
from types import FrameType

from ..system.processes import has_running_thread, state_of

STACKS_SIGNAL, STACKS_WITHOUT_GIL = (
    (signal.SIGRTMIN + 11, signal.SIGRTMIN + 12) if hasattr(signal, "SIGRTMIN") else (None, None)
)
"""Servers and projects hardly use these two; None where there are none, as on macOS."""

TIME_FOR_PYTHON = 1.0
"""Seconds until the second signal."""

DUMP_TIMEOUT = 2.0
"""Seconds for a process to write its stacks. Only a machine that is overloaded needs more than a few ms."""

LONGEST_DUMP = 2**20
"""Bytes of the stacks that are read."""

STABLE, STABLE_WHILE_RUNNING = 0.03, 0.3
"""Seconds without a further byte after which the stacks count as whole, as they have no end mark.

The second one holds while a thread of the process runs, which may be the one that writes them.
"""

LOOK_INTERVAL = 0.01
"""Seconds between two looks at the stacks that are being written."""

ENDED_OR_STOPPED = ("T", "t", "Z", "")
"""States in which a process reacts to no signal: see `state_of`."""


def write_on_signals(
    file: int,
    length: Callable[[], int],
    more: Callable[[FrameType | None], str] | None = None,
    *,
    interrupts: bool,
) -> bool:
    """Write the stacks of all threads to a file at each signal; call it in the main thread.

    ``length()`` returns the number of bytes that are there already. ``more(frame)`` returns text to write
    below them, unless C code holds the GIL; ``frame`` is the one that the signal has interrupted.
    ``interrupts``: True makes the signal interrupt a system call in which the main thread waits. A library in
    C that a view calls may take that for an error; with False it goes on, and the second signal follows.
    Return False where there are no such signals.
    """
    if STACKS_SIGNAL is None or STACKS_WITHOUT_GIL is None:
        return False

    def write_stacks(number: int, frame: FrameType | None) -> None:
        if length():  # C code was quicker
            return
        faulthandler.dump_traceback(file, all_threads=True)
        if more is not None:
            os.write(file, more(frame).encode(errors="replace")[:LONGEST_DUMP])

    faulthandler.unregister(STACKS_WITHOUT_GIL)  # that of a process before a fork
    faulthandler.register(STACKS_WITHOUT_GIL, file=file, all_threads=True)
    signal.signal(STACKS_SIGNAL, write_stacks)
    signal.siginterrupt(STACKS_SIGNAL, interrupts)
    return True


OWN_FRAME = re.compile(r'^  File "[^"\n]*dump\.py", line \d+ in write_stacks\n', re.MULTILINE)


def decoded(stacks: bytes) -> str:
    """Return stacks as text, without the frame of the signal's handler."""
    return OWN_FRAME.sub("", stacks.decode(errors="replace"))


class Growth:
    """The growth of the stacks that a process writes from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._asked = time.monotonic()
        self._length, self._changed = 0, 0.0
        self._is_without_gil = False
        self._signal(STACKS_SIGNAL)

    def has_ended(self, length: int) -> bool:
        """Return True if the stacks are whole at this length, or, with the length 0, if none will come."""
        now = time.monotonic()
        if length != self._length:
            self._length, self._changed = length, now
        if now >= self._asked + DUMP_TIMEOUT:
            return True
        if not length:
            if now >= self._asked + TIME_FOR_PYTHON and not self._is_without_gil:
                self._is_without_gil = True
                self._signal(STACKS_WITHOUT_GIL)
            return state_of(self._pid) in ENDED_OR_STOPPED
        stable = now - self._changed
        return stable >= STABLE_WHILE_RUNNING or (stable >= STABLE and not has_running_thread(self._pid))

    def _signal(self, number: int | None) -> None:
        assert number is not None  # else the process writes no stacks
        os.kill(self._pid, number)
