"""The stacks of a process, which its faulthandler writes to its record.

This works while C code holds the GIL of the process: a signal handler in C writes them.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..process.record import STACKS_SIGNAL, Record

STACKS_TIMEOUT = 2.0
"""Seconds for a process to write its stacks. Only a machine that is overloaded needs more than a few ms."""

STABLE, STABLE_WHILE_RUNNING = 0.03, 0.3
"""Seconds without a further byte after which the stacks count as whole, as they have no end mark.

The second one holds while a thread of the process runs, which may be the one that writes them.
"""

LOOK_INTERVAL = 0.01
"""Seconds between two looks at the stacks that are being written."""

ENDED_OR_STOPPED = ("T", "t", "Z", "")
"""States in which a process reacts to no signal: see `state_of`."""

SUSPENDED = "it is stopped (SIGSTOP)"

THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)\b", re.MULTILINE)
"""The line with which faulthandler begins the stack of a thread."""


class NoStacks(Exception):
    """A process does not write its stacks; the message says why."""


class Dump:
    """The stacks that a process writes. Make one, and call `look` until it returns them.

    Neither waits for the process. A process writes one dump at a time: for another one, make a `Dump` after
    this one has been closed.
    """

    _under_way: set[int] = set()  # PIDs
    _turn = threading.Lock()

    def __init__(self, pid: int, record: Record) -> None:
        self.pid = pid
        self._record = record
        self._deadline = time.monotonic() + STACKS_TIMEOUT
        self._changed = 0.0
        self._length = 0
        self._has_begun = False

    def look(self) -> str | None:
        """Return the stacks once they are whole, None if they are not yet; `NoStacks` if none will come."""
        try:
            if self._has_begun:
                return self._look()
            self._begin()
        except (OSError, ValueError):  # ValueError: the record has been closed
            raise NoStacks("it has ended") from None
        return None

    def _begin(self) -> None:
        if not self._record.dumps_stacks or STACKS_SIGNAL is None:
            raise NoStacks("it writes no stacks, or none yet")
        if is_suspended(self.pid):
            raise NoStacks(f"does not respond: {SUSPENDED}")
        with self._turn:
            if self.pid not in self._under_way:
                self._under_way.add(self.pid)
                self._has_begun = True
        if not self._has_begun:  # another caller's is under way
            if time.monotonic() >= self._deadline:
                raise NoStacks(why_silent(self.pid))
            return
        self._deadline = time.monotonic() + STACKS_TIMEOUT
        self._record.begin_dump()
        os.kill(self.pid, STACKS_SIGNAL)

    def _look(self) -> str | None:
        now = time.monotonic()
        length = self._record.dump_length()
        if length != self._length:
            self._length, self._changed = length, now
        if now >= self._deadline or (not length and state_of(self.pid) in ENDED_OR_STOPPED):
            if not length:
                raise NoStacks(why_silent(self.pid))
            return self._record.read_dump()
        is_stable = length and now - self._changed >= STABLE
        if is_stable and (now - self._changed >= STABLE_WHILE_RUNNING or not has_running_thread(self.pid)):
            return self._record.read_dump()
        return None

    def close(self) -> None:
        if self._has_begun:
            self._has_begun = False
            self._under_way.discard(self.pid)


def read_stacks(processes: Iterable[tuple[int, Record]]) -> Iterator[tuple[int, str | NoStacks]]:
    """Yield the PID of each process with its stacks; wait for all of them together."""
    dumps = [Dump(pid, record) for pid, record in processes]
    with contextlib.ExitStack() as stack:
        for dump in dumps:
            stack.callback(dump.close)
        while dumps:
            for dump in list(dumps):
                try:
                    stacks = dump.look()
                except NoStacks as error:
                    dumps.remove(dump)
                    yield dump.pid, error
                else:
                    if stacks is not None:
                        dumps.remove(dump)
                        yield dump.pid, stacks
            if dumps:
                time.sleep(LOOK_INTERVAL)


def stack_of(stacks: str, thread: int) -> str | None:
    """Return the stack of one thread, by its identifier; None if it is not there."""
    return split(stacks).get(thread)


def split(stacks: str) -> dict[int, str]:
    """Return the stacks by the identifiers of their threads, as `threading.get_ident` has them."""
    found = list(THREAD.finditer(stacks))
    ends = [*(match.start() for match in found[1:]), len(stacks)][: len(found)]
    return {
        int(match[1], 16): stacks[match.start() : end].strip() for match, end in zip(found, ends, strict=True)
    }


def why_silent(pid: int) -> str:
    """Return why a process does not react to a signal, as far as the system says."""
    state = state_of(pid)
    reasons = {
        "T": SUSPENDED,
        "t": "a debugger has stopped it",
        "D": "it waits for the system, such as a disk or a network file system",
        "Z": "it has ended",
        "": "it has ended",
    }
    return f"does not respond: {reasons.get(state, 'the machine may be overloaded')}"


def is_suspended(pid: int) -> bool:
    """Return whether SIGSTOP has stopped a process."""
    return state_of(pid) == "T"


def state_of(pid: int) -> str:
    """Return the letter of a process's state in /proc; "" if there is no such process, "?" without /proc."""
    with contextlib.suppress(OSError):
        return _state(Path(f"/proc/{pid}/stat"))
    return "" if Path("/proc/self").exists() else "?"


def has_running_thread(pid: int) -> bool:
    """Return whether a thread of a process runs, or waits for a processor or a disk."""
    with contextlib.suppress(OSError):
        return any(_state(task / "stat") in "RD" for task in Path(f"/proc/{pid}/task").iterdir())
    return False


def _state(path: Path) -> str:
    # The name of the program, in parentheses, may hold anything.
    return path.read_text(errors="replace").rpartition(")")[2].split()[0]
