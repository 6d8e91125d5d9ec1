"""The entries of the log for stuck requests: each has the stack of its thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ...process.dump import LOOK_INTERVAL
from ...process.slots import InFlight
from ...process.switchboard import Switchboard
from ..child import Child
from ..stacks import Dump, NoStacks, stack_of


class StuckLog:
    """Logs each stuck request of a child once, without waiting for the stacks of its process."""

    def __init__(self, child: Child, switchboard: Switchboard, log: Callable[[str, int], None]) -> None:
        self._child = child
        self._switchboard = switchboard
        self._log = log
        self.pending: set[int] = set()
        """PIDs of the workers whose stacks are being written."""

    def note(self, pid: int, stuck: Iterable[InFlight]) -> None:
        """Log the stuck requests of a worker that the log does not have."""
        logged = self._child.stuck_logged
        new = [each for each in stuck if (pid, each.slot, each.serial) not in logged]
        record = self._child.records.get(pid)
        if new and record is not None and pid not in self.pending:
            self.pending.add(pid)
            self._await(Dump(pid, record), pid, new)

    def forget_others(self, pids: Iterable[int]) -> None:
        """Forget the requests of workers that have ended."""
        pids = set(pids)
        self._child.stuck_logged = {each for each in self._child.stuck_logged if each[0] in pids}

    def _await(self, dump: Dump, pid: int, requests: list[InFlight]) -> None:
        stacks, why = None, ""
        try:
            stacks = dump.look()
        except NoStacks as error:
            why = f"The worker {error}." if str(error).startswith("does") else f"There is no stack: {error}."
        if stacks is None and not why:
            self._switchboard.call_later(LOOK_INTERVAL, lambda: self._await(dump, pid, requests))
            return
        dump.close()
        self.pending.discard(pid)
        for request in requests:
            self._child.stuck_logged.add((pid, request.slot, request.serial))
            self._write(pid, request, why or self._stack_of(pid, request, stacks or ""))

    def _stack_of(self, pid: int, request: InFlight, stacks: str) -> str:
        if (stack := stack_of(stacks, request.thread)) is not None:
            return stack
        record = self._child.records.get(pid)
        if record is not None and not record.is_closed and record.threads:
            return "Its thread has ended."
        # A greenlet has a stack of its own, unless it keeps its thread busy.
        return f"Its greenlet has no stack. These are the stacks of its process:\n{stacks.strip()}"

    def _write(self, pid: int, request: InFlight, stack: str) -> None:
        now = time.monotonic()
        self._log(
            f"A request of the server {self._child.alias!r} is stuck in worker {pid}: {request.name}, "
            f"begun {now - request.started:.1f} seconds ago, without progress for "
            f"{now - request.progressed:.1f} seconds.\n{stack}",
            40,
        )
