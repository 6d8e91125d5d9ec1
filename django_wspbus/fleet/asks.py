"""`bus.ask`: the questions of this member, and its answers to those of others."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..process.fleet import Reply
from ..process.publication import Outcome
from .base import Member, MemberProcess

EXPECT, REPLY, GONE = "expect", "reply", "gone"
"""Kinds of messages to the member that asks: the processes that are going to answer; the answer of one; one
has ended before it answered."""

LONGEST_CHARACTER = 12
"""Bytes of a character in JSON, at most."""


def fitting(outcome: Outcome, largest: int) -> Outcome:
    """Return an outcome that a message of ``largest`` bytes can hold: larger results become an error."""
    if outcome.error is not None:
        return Outcome(None, outcome.error[: largest // LONGEST_CHARACTER])
    if (size := len(json.dumps(outcome.results))) <= largest:
        return outcome
    return Outcome(None, f"Its results have {size:,} bytes; {largest:,} are the most for another member.")


class Question:
    """An ask, and the replies that have come. ``members``: those that are expected to answer."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._members = {member.id: member for member in members}
        self._hosts = {member.id: member.host for member in self._members.values()}
        self._processes: dict[str, dict[int, list[str]]] = {}
        self._replies: dict[tuple[str, int], Reply | None] = {}
        self._changed = threading.Condition()

    def expect(self, member: str, host: str, processes: Iterable[MemberProcess]) -> None:
        """Note which processes of a member are going to answer."""
        with self._changed:
            self._hosts[member] = host
            self._processes[member] = {each.pid: each.roles for each in processes}
            self._changed.notify()

    def note_reply(self, member: str, pid: int, results: list[Any] | None, error: str | None) -> None:
        with self._changed:
            roles = self._processes.get(member, {}).get(pid, [])
            self._replies[member, pid] = Reply(self._hosts.get(member, ""), pid, roles, results or [], error)
            self._changed.notify()

    def note_end(self, member: str, pid: int) -> None:
        """Note that a process has ended: it does not count any more, unless it has answered."""
        with self._changed:
            self._replies.setdefault((member, pid), None)
            self._changed.notify()

    def note_leave(self, member: str) -> None:
        """Note that a member has left the fleet."""
        with self._changed:
            self._members.pop(member, None)
            for pid in self._processes.get(member, {}):
                self._replies.setdefault((member, pid), None)
            self._changed.notify()

    def result(self, until: float, timeout: float, trouble: str | None = None) -> list[Reply]:
        """Wait for the replies; return them, and one for each process that has sent none.

        ``until``: the time of `time.monotonic` up to which it waits; ``timeout``: the seconds of the ask;
        ``trouble``: the reason why the other members could not be asked, if there is one.
        """
        with self._changed:
            self._changed.wait_for(self._is_answered, max(until - time.monotonic(), 0))
            replies = [each for each in self._replies.values() if each is not None]
            missing = list(self._missing())
        error = f"did not answer within {timeout:g} s"
        replies += [Reply(host, each.pid, each.roles, error=error, missing=True) for host, each in missing]
        if trouble is not None:
            replies.append(Reply("", 0, [], error=trouble, missing=True))
        return sorted(replies, key=lambda reply: (reply.host, reply.pid))

    def _is_answered(self) -> bool:
        return next(self._missing(), None) is None and self._members.keys() <= self._processes.keys()

    def _missing(self) -> Iterator[tuple[str, MemberProcess]]:
        for id, member in self._members.items():  # noqa: A001
            if id not in self._processes:
                yield from ((member.host, each) for each in member.processes)
        for id, processes in self._processes.items():  # noqa: A001
            for pid, roles in processes.items():
                if (id, pid) not in self._replies:
                    yield self._hosts[id], MemberProcess(pid, roles)


class Sink(Protocol):
    """The way of the answers of this member to the one that asks."""

    def expect(self, processes: list[MemberProcess]) -> None: ...
    def reply(self, pid: int, outcome: Outcome) -> None: ...
    def gone(self, pid: int) -> None: ...


@dataclass(slots=True)
class Inquiry:
    """A publication in the processes of this member, and the PIDs of those that have not answered."""

    sink: Sink
    until: float
    """The time of `time.monotonic` from which no answer counts."""
    pending: set[int] = field(default_factory=set)


class Answers:
    """Publishes in the processes of this member, and passes their answers on.

    ``processes()`` returns those that answer; ``order(pid, number, channel, args)`` has one of them publish,
    and returns False if it has ended.
    """

    def __init__(
        self,
        processes: Callable[[], list[MemberProcess]],
        order: Callable[[int, int, str, list[Any]], bool],
    ) -> None:
        self._processes = processes
        self._order = order
        self._numbers = itertools.count(time.monotonic_ns())  # none of an earlier program of the process
        self._inquiries: dict[int, Inquiry] = {}
        self._lock = threading.Lock()

    def begin(self, channel: str, args: list[Any], timeout: float, sink: Sink) -> None:
        processes, now = self._processes(), time.monotonic()
        number = next(self._numbers)
        inquiry = Inquiry(sink, now + timeout, {each.pid for each in processes})
        with self._lock:
            self._inquiries = {key: each for key, each in self._inquiries.items() if each.until > now}
            self._inquiries[number] = inquiry
        sink.expect(processes)
        for each in processes:
            if not self._order(each.pid, number, channel, args):
                self.note_end(each.pid)

    def note_reply(self, number: int, pid: int, outcome: Outcome) -> None:
        """Note the answer of a process of this member."""
        inquiry = self._inquiries.get(number)
        if inquiry is not None and self._discard(inquiry, pid):
            inquiry.sink.reply(pid, outcome)

    def note_end(self, pid: int) -> None:
        """Note that a process of this member has ended."""
        for inquiry in list(self._inquiries.values()):
            if self._discard(inquiry, pid):
                inquiry.sink.gone(pid)

    def _discard(self, inquiry: Inquiry, pid: int) -> bool:
        with self._lock:
            is_pending = pid in inquiry.pending
            inquiry.pending.discard(pid)
            return is_pending
