"""The stacks of a process, which it writes to its record.

This works while C code holds the GIL of the process: see `process.dump`.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Iterator

from ..process.dump import DUMP_TIMEOUT, LOOK_INTERVAL, Growth
from ..process.record import Record
from ..system.processes import is_suspended, state_of

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
        self._deadline = time.monotonic() + DUMP_TIMEOUT
        """The time of `time.monotonic` until which it waits for the dump of another caller."""
        self._has_turn = False
        self._growth: Growth | None = None

    def look(self) -> str | None:
        """Return the stacks once they are whole, None if they are not yet; `NoStacks` if none will come."""
        try:
            if self._growth is not None:
                return self._look(self._growth)
            self._begin()
        except (OSError, ValueError):  # ValueError: the record has been closed
            raise NoStacks("it has ended") from None
        return None

    def _begin(self) -> None:
        if not self._record.dumps_stacks:
            raise NoStacks("it writes no stacks, or none yet")
        if is_suspended(self.pid):
            raise NoStacks(f"does not respond: {SUSPENDED}")
        with self._turn:
            if self.pid not in self._under_way:
                self._under_way.add(self.pid)
                self._has_turn = True
        if self._has_turn:
            self._record.begin_dump()
            self._growth = Growth(self.pid)
        elif time.monotonic() >= self._deadline:  # another caller's is under way
            raise NoStacks(why_silent(self.pid))

    def _look(self, growth: Growth) -> str | None:
        length = self._record.dump_length()
        if not growth.has_ended(length):
            return None
        if not length:
            raise NoStacks(why_silent(self.pid))
        return self._record.read_dump()

    def close(self) -> None:
        if self._has_turn:
            self._has_turn = False
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
