"""One child process of a server, from its spawn to its end, as the site process sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import IO

from ..process.messages import Link, Message, Received
from ..process.outbox import Offered
from ..process.phases import Phases
from ..process.record import Record
from ..process.reports import OF_THE_FLEET, Died, Hello, Report, read_report
from ..process.switchboard import Switchboard
from ..process.worker_orders import Order as WorkerOrder
from ..process.worker_orders import as_message
from ..successor.state import RetireeState
from .group import ProcessGroup
from .links import Links
from .orders import DRAIN, EXIT, SERVE
from .processes import ChildProcess
from .progress import Progress
from .records import take_record
from .spawn import read_refusal
from .titles import title_of

LEAST_SHORTENED = 0.1
"""Seconds by which a further order to exit has to be earlier, as every order stays in the pair of sockets."""


class Child(ProcessGroup):
    """A child process of a server, and the workers that it forks.

    ``answer(link, message)`` handles their requests to the site, and ``changed()`` is called after each
    change of their state; both in the switchboard's thread. ``refusal``: the file in which the process
    reports a failure before it runs the function of its server. ``ended(child, pid, record)`` is called when
    one of its processes has ended, before its record is closed, and ``reported(child, report)`` when one has
    sent a report.
    """

    def __init__(
        self,
        alias: str,
        process: ChildProcess,
        pair: socket.socket,
        switchboard: Switchboard,
        answer: Callable[[Link, Message], None],
        changed: Callable[[], None],
        refusal: IO[bytes] | None = None,
        ended: Callable[[Child, int, Record], None] = lambda child, pid, record: None,
        reported: Callable[[Child, Report], None] = lambda child, report: None,
    ) -> None:
        super().__init__(process, switchboard, changed)
        self.alias = alias
        self.served_from: float | None = None
        """The time of `time.monotonic` at which it was released to serve; None before."""
        self.progress = Progress()
        self.records: dict[int, Record] = {}
        """PID -> the record of its master or of a worker."""
        self.wanted: int | None = None
        """The number of workers that are to serve; None: that of its settings."""
        self.retiring: dict[int, RetireeState] = {}
        """PID -> the state of a worker that another one replaces; see `retiring`."""
        self.stuck_logged: set[tuple[int, int, int]] = set()
        """PID, slot and serial of each stuck request that the log has."""
        self.trouble: str | None = None
        """The reason why a stuck worker cannot be replaced at present, if there is one."""
        self.is_closed = False
        self.allowed_for_requests = 0.0
        """Seconds that it had until requests are cut off."""
        self.why_shortened = ""
        self._answer = answer
        self._process_ended = ended
        self._reported = reported
        self.links = Links(
            pair, switchboard, heard=self._hear, ended=self._note_end_of, all_ended=self._note_end_of_pair
        )
        self._refusal = refusal

    def listen(self) -> None:
        """Listen to its processes from now on."""
        self.links.listen()
        self.watch()

    # Its state

    @property
    def workers(self) -> list[int]:
        return sorted(self.progress.workers.values())

    @property
    def answering(self) -> list[int]:
        """The PIDs of the workers that answer an ask: none that stands by, boots, retires or exits."""
        if self.deadline is not None or self.ended:
            return []
        listening = set(self.progress.listeners.values())
        return sorted((self.progress.ready_workers() & listening) - self.retiring.keys())

    @property
    def is_serving(self) -> bool:
        return self.served_from is not None

    @property
    def is_ready(self) -> bool:
        return self.progress.is_ready and not self.ended

    @property
    def is_settled(self) -> bool:
        """True once it is ready, or will never be."""
        return self.is_ready or self.progress.failure is not None or self.ended

    @property
    def is_gone(self) -> bool:
        """True once it has ended with its workers, which outlive a killed master for a moment."""
        return self.ended and (not self.progress.workers or self.process.poll() == 0)

    @property
    def lifetime(self) -> float:
        """Seconds since it was released to serve."""
        return 0 if self.served_from is None else time.monotonic() - self.served_from

    @property
    def in_flight(self) -> int:
        """The number of requests that its processes are answering."""
        count = 0
        for record in list(self.records.values()):
            with contextlib.suppress(ValueError):  # the process has ended meanwhile
                count += sum(1 for _ in record.slots.in_flight())
        return count

    # In words

    def why_not_ready(self, timeout: float) -> str:
        """Return why it did not become ready within a number of seconds."""
        if self.progress.failure is None and self.ended:
            self.links.hear_last()
            self._read_refusal()
        if self.progress.failure is not None:
            return self.progress.failure
        if self.ended:
            return f"it {self.how_ended()} before it was ready."
        return (
            f'it was not ready within {timeout:g} seconds (WSPBUS["READY_TIMEOUT"]): {self.progress.stage}.'
        )

    def _read_refusal(self) -> None:
        refused = None if self._refusal is None else read_refusal(self._refusal)
        if refused is not None:
            self.progress.note_failure(*refused)

    def remains(self) -> str:
        """Return in words which workers have not ended in time."""
        workers = ", ".join(map(str, self.workers)) or "none"
        return f"killed after {self.allowed:.3g} seconds, as it had not stopped; workers left: {workers}."

    def unanswered(self) -> list[str]:
        """Return in words which requests its workers have cut off."""
        if not self.progress.cut_off:
            return []
        hurried = self.progress.hurried
        late = [f"{each} (worker {pid})" for pid, each in self.progress.cut_off.items() if pid not in hurried]
        stuck = [f"{each} (worker {pid})" for pid, each in self.progress.cut_off.items() if pid in hurried]
        after = f"after {self.allowed_for_requests:.3g} seconds{self.why_shortened}"
        return [
            f"requests cut off {why}: {'; '.join(requests)}."
            for requests, why in ((late, after), (stuck, "as they were stuck"))
            if requests
        ]

    # Reports and questions

    def _note_end_of_pair(self) -> None:
        if not self.reports_end:
            self._note_end()
        self.changed()

    def _note_end_of(self, link: Link) -> None:
        pid = self.progress.workers.get(link.fileno())
        retiree = None if pid is None else self.retiring.get(pid)
        has_order = retiree is not None and retiree.ordered is not None
        self.progress.note_end(link, exits=self.deadline is not None or has_order)
        if pid is not None and pid not in self.progress.workers.values():
            self.retiring.pop(pid, None)
            self._forget_record(pid)
            self.progress.forget(pid)
        self.changed()

    def _forget_record(self, pid: int) -> None:
        if (record := self.records.pop(pid, None)) is not None:
            try:
                self._process_ended(self, pid, record)
            finally:
                record.close()

    def _hear(self, link: Link, messages: list[Received]) -> None:
        changes = False
        for message, descriptors in messages:
            take_record(self.records, message, descriptors)
            if "action" in message:
                self._answer(link, message)
            elif "ping" in message:
                with contextlib.suppress(OSError):  # it is gone
                    self._switchboard.post(link, {"pong": True})
            else:
                changes |= self._note(link, message)
        if changes:
            self.changed()

    def _note(self, link: Link, message: Message) -> bool:
        """Note a report; return False if it says nothing about the child itself."""
        report = read_report(message)
        if isinstance(report, OF_THE_FLEET):
            self._reported(self, report)
            return False
        if isinstance(report, Hello):
            link.name = f"Process {report.pid} of {title_of(self.alias)}"
        if isinstance(report, Died):  # first read the reason, which may wait unread in the worker's own link
            for descriptor, pid in list(self.progress.workers.items()):
                if pid == report.pid:
                    self.links.hear_now(descriptor)
        self.progress.note(link, report, is_serving=self.is_serving)
        self._reported(self, report)
        return True

    # Orders

    def serve(self) -> None:
        """Release its workers: those there are, and those it will fork."""
        self.served_from = time.monotonic()
        self._order(SERVE)

    def drain_queue(self) -> None:
        """Tell its workers to answer, before they exit, the clients that wait to be accepted."""
        self._order(DRAIN)

    def order_workers(self, order: WorkerOrder) -> int:
        """Give an order to the workers that listen, but do not stand by; return how many there are."""
        standby = self.progress.standby
        listeners = [each for each, pid in list(self.progress.listeners.items()) if pid not in standby]
        for descriptor in listeners:
            self.links.post(descriptor, as_message(order))
        return len(listeners)

    def order_worker(self, pid: int, order: WorkerOrder) -> bool:
        """Give an order to one worker, without waiting for it; return False if it does not listen."""
        found = [each for each, listener in list(self.progress.listeners.items()) if listener == pid]
        for descriptor in found:
            self.links.post(descriptor, as_message(order))
        return bool(found)

    def offer(self, orders: Sequence[Offered]) -> None:
        """Send orders to each process that listens; one that does not read loses the oldest."""
        for descriptor in list(self.progress.listeners):
            self.links.offer(descriptor, orders)

    def _order(self, order: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self.links.order(order)

    def terminate(self, phases: Phases, why: str = "") -> None:
        """Tell it to answer the requests in flight, run its listeners and end, each in its phase.

        A later call can only shorten that; ``why`` it does so is for the log.
        """
        is_first = self.deadline is None
        if self.deadline is None:
            self.dismissed_at = time.monotonic()
        elif phases.children >= self.deadline - LEAST_SHORTENED:
            return
        self.deadline = max(phases.children, self.dismissed_at)
        self.allowed_for_requests = max(phases.requests - self.dismissed_at, 0)
        self.why_shortened = why
        self._order(EXIT % (phases.requests, phases.workers))
        if is_first:
            self.send_signal(signal.SIGTERM)

    def wake_master(self) -> None:
        """Make the master count its workers again."""
        self.send_signal(signal.SIGCHLD)

    def signal_worker(self, pid: int, number: int) -> None:
        """Send a signal to a worker, if it has not ended."""
        if pid in self.progress.workers.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def close(self) -> None:
        """Kill the processes that are left, read their last messages, and release all resources."""
        self.is_closed = True
        super().close()
        self.links.hear_last()
        self.links.close()
        self.progress.workers.clear()
        for pid in list(self.records):
            self._forget_record(pid)
        if self._refusal is not None:
            self._read_refusal()  # for a later call of why_not_ready()
            self._refusal.close()
            self._refusal = None
