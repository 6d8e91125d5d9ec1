"""One child process of a server, from its spawn to its end, as the site process sees it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import IO, Any

from ..process.messages import Link, Message, Received, await_event
from ..process.pairs import take_in
from ..process.phases import Phases
from ..process.switchboard import Switchboard
from ..successor.inheritance import ChildState, LinkState
from ..system.statuses import how_ended
from .adopted import AdoptedProcess, Process, descendants
from .spawn import read_report

SERVE = b"s"
DRAIN = b"d"
EXIT = b"e%.3f,%.3f;"
"""Orders, which stay in the pair for every process of a child to see: answer requests; answer the queue
before the exit; exit, with the moments at which requests and then listeners are cut off (see `phases`)."""

LAST_WORDS = 1
"""Seconds within which what the processes of a child have sent before they left is to be heard."""


def read_orders(pair: socket.socket) -> bytes:
    """In a process of a child: return what the site has ordered so far."""
    poll = select.poll()  # before, as gevent's sockets wait whatever the flags say
    poll.register(pair, select.POLLIN)
    try:
        return pair.recv(256, socket.MSG_PEEK | socket.MSG_DONTWAIT) if poll.poll(0) else b""
    except OSError:
        return b""


def read_exit(orders: bytes) -> tuple[float, float] | None:
    """Return the moments of an order to exit, of `time.monotonic`: of requests, and of listeners."""
    found = re.search(rb"e([\d.]+),([\d.]+);", orders)
    return None if found is None else (float(found[1]), float(found[2]))


def await_exit(pair: socket.socket) -> tuple[float, float] | None:
    """In a process of a child: wait for the order to exit and return its moments; None if the site ends."""
    # An order stays in the pair: a poll for it returns at once from then on, so wait for arrivals only.
    if hasattr(select, "epoll"):
        arrivals: Any = select.epoll()
        arrivals.register(pair, select.EPOLLIN | select.EPOLLET)
        hangup, pause = select.EPOLLHUP, None
    else:  # macOS; gevent takes it away
        arrivals = select.poll()
        arrivals.register(pair, 0)
        hangup, pause = select.POLLHUP, 500
    while (moments := read_exit(read_orders(pair))) is None:
        if any(event & hangup for _, event in arrivals.poll(pause)):
            return None
    return moments


class Generation:
    """A child process and the processes that it forks, which say ``ready`` once they could serve.

    ``answer(link, message)`` is given what they ask of the site, ``changed()`` is called whenever
    there is news; both in the switchboard's thread.
    """

    def __init__(
        self,
        alias: str,
        process: Process,
        pair: socket.socket,
        switchboard: Switchboard,
        answer: Callable[[Link, Message], None],
        changed: Callable[[], None],
        report: IO[bytes] | None = None,
    ) -> None:
        self.alias = alias
        self.process = process
        self.spawned = time.monotonic()
        self.is_serving = False
        self.served_from: float | None = None
        self.has_answered = False
        self.ended = False
        self.failed_stops: list[str] = []
        self._cut_off: list[str] = []
        self.refused_workers: list[str] = []
        self.status = 1
        self.deadline: float | None = None
        """When it is to be gone, once it has been told to leave."""
        self.allowed = 0.0
        """How many seconds it was given for that."""
        self._allowed_for_requests = 0.0
        self._pair = pair
        self._switchboard = switchboard
        self._answer = answer
        self._changed = changed
        self._workers: dict[int, int] = {}  # descriptor of the link -> PID
        self._ready: set[int] = set()
        self._links: dict[int, Link] = {}
        self._expected: int | None = None
        self._failure: str | None = None
        self._pair_ended = False
        self._silent = threading.Event()  # no process is left that could send anything
        self._pidfd: int | None = None
        self._report = report

    def listen(self) -> None:
        """Hear from it from now on."""
        self._switchboard.watch(self._pair.fileno(), self._take_in)
        with contextlib.suppress(AttributeError, OSError):  # no Linux, or an old one: the pair tells, later
            self._pidfd = os.pidfd_open(self.process.pid)
            self._switchboard.watch(self._pidfd, self._note_end)

    # What is known of it

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        return sorted(self._workers.values())

    @property
    def is_ready(self) -> bool:
        return self._expected is not None and len(self._ready) >= self._expected and not self.ended

    @property
    def is_settled(self) -> bool:
        return self.is_ready or self._failure is not None or self.ended

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, and its workers, which outlive a killed master for a moment."""
        return self.ended and (not self._workers or self.process.poll() == 0)

    @property
    def is_overdue(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def ended_as_told(self) -> bool:
        """Whether it has ended cleanly, as when another program than the site tells it to."""
        return self.process.poll() in (0, -signal.SIGTERM)

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.spawned

    @property
    def lifetime(self) -> float:
        """Seconds for which it has served."""
        return 0 if self.served_from is None else time.monotonic() - self.served_from

    def why_not_ready(self, timeout: float) -> str:
        """Return why it did not become ready within a number of seconds."""
        if self._failure is None and self.ended:
            self.hear_last_words()
        if self._failure is None and self.ended:
            self._read_report()
        if self._failure is not None:
            return self._failure
        if self.ended:
            return f"it ended before it was ready, {self.how_ended()}."
        return f'it was not ready within {timeout:g} seconds (WSPBUS["READY_TIMEOUT"]).'

    def _read_report(self) -> None:
        reported = None if self._report is None else read_report(self._report)
        if reported is not None:
            self.status, self._failure = reported

    def how_ended(self) -> str:
        return how_ended(self.process.wait())

    def remains(self) -> str:
        """Return in words what has not left in time."""
        workers = ", ".join(map(str, self.workers)) or "none"
        return f"not stopped within {self.allowed:.3g} seconds, workers left: {workers}."

    def unanswered(self) -> list[str]:
        """Return in words which requests its workers have cut off."""
        if not self._cut_off:
            return []
        return [f"not answered within {self._allowed_for_requests:.3g} seconds: {'; '.join(self._cut_off)}."]

    # News

    def _note_end(self) -> None:
        if self._pidfd is not None:
            self._switchboard.forget(self._pidfd)
        if not self.ended:
            self.process.wait()  # it is no zombie for longer than this
            self.ended = True
            self._changed()

    def _take_in(self) -> None:
        link = take_in(self._pair)
        if link is None:
            self._switchboard.forget(self._pair.fileno())
            self._pair_ended = True
            self._note_silence()
            if self._pidfd is None:
                self._note_end()
            self._changed()
            return
        self._listen_to(link)

    def _listen_to(self, link: Link) -> None:
        self._links[link.fileno()] = link
        self._switchboard.watch(link.fileno(), lambda: self._hear(link), link)

    def _hear(self, link: Link) -> None:
        messages = link.receive()
        if messages is None:
            self._note_end_of(link)
            self._switchboard.forget(link.fileno())
            self._links.pop(link.fileno(), None)
            self._ready.discard(link.fileno())
            self._workers.pop(link.fileno(), None)
            link.close()
            self._note_silence()
        else:
            self._take(link, messages)
        self._changed()

    def _note_end_of(self, link: Link) -> None:
        """Take note of a worker that ends, by whatever signal, before its listeners have run."""
        started, worker = link.fileno() in self._ready, self._workers.get(link.fileno())
        is_last = list(self._workers.values()).count(worker or 0) == 1  # it may have opened another link
        if self.deadline is not None and started and is_last:
            self.failed_stops.append(f"worker {worker} ended before its stop listeners had run.")

    def _note_silence(self) -> None:
        if self._pair_ended and not self._links:
            self._silent.set()

    def _take(self, link: Link, messages: list[Received]) -> None:
        for message, _ in messages:
            if "ask" in message:
                self._answer(link, message)
            elif "ping" in message:
                with contextlib.suppress(OSError):  # it is gone
                    self._switchboard.post(link, {"pong": True})
            else:
                self._note(link, message)

    def _note(self, link: Link, message: Message) -> None:
        if "hello" in message:
            link.name = f"Process {message['pid']} of the server {self.alias!r}"
        if message.get("hello") == "worker":
            self._workers[link.fileno()] = message["pid"]
        if "workers" in message:
            self._expected = message["workers"]
        if "ready" in message:
            self._ready.add(link.fileno())
        if "answered" in message:
            self.has_answered = True
        if "failed" in message:
            if self.is_serving:  # one more worker, in place of one that has ended
                self.refused_workers.append(message["failed"])
            elif self._failure is None:
                self.status = message["status"]
                self._failure = message["failed"]
        if "lost" in message and not self.is_serving and self._failure is None:
            self._hear_dead(message["lost"])
            self._failure = self._failure or f"worker {message['lost']} died before it was ready."
        if "left" in message:
            self._ready.discard(link.fileno())
            self.failed_stops += message["failures"]
            if message["cut_off"]:
                self._cut_off.append(f"{message['cut_off']} (worker {message['left']})")

    def _hear_dead(self, pid: int) -> None:
        """Hear first what a worker has said before it died: its own link may not have had its turn."""
        for descriptor in [descriptor for descriptor, worker in self._workers.items() if worker == pid]:
            link = self._links[descriptor]
            while descriptor in self._workers and await_event(link, select.POLLIN, 0):
                self._hear(link)

    # Orders

    def serve(self) -> None:
        """Release its workers: those there are, and those it will fork."""
        self.is_serving = True
        self.served_from = time.monotonic()
        self._order(SERVE)

    def drain_queue(self) -> None:
        """Tell its workers to answer, before they exit, the clients that wait to be accepted."""
        self._order(DRAIN)

    def _order(self, order: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._pair.send(order, socket.MSG_DONTWAIT)

    def terminate(self, phases: Phases) -> None:
        """Tell it to answer what is in flight, run its listeners and end, each in its phase."""
        if self.deadline is None:
            self.allowed = max(phases.children - time.monotonic(), 0)
            self._allowed_for_requests = max(phases.requests - time.monotonic(), 0)
            self.deadline = phases.children
            self._order(EXIT % (phases.requests, phases.workers))
            if not self.ended:  # else its PID may be that of another process
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and all that it has started; also from a signal handler or a watchdog."""
        with contextlib.suppress(PermissionError):
            try:
                # Its process group outlives it as long as there is a process in it.
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # there is none, or the child shares the group of the site
                self._kill_sharing()

    def _kill_sharing(self) -> None:
        if not self.ended:  # else its PID may be that of another process
            for pid in (self.pid, *descendants(self.pid)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left of it, hear its last words, and leave nothing behind."""
        self.kill()
        self.process.wait()
        self.ended = True
        self.hear_last_words()
        for descriptor in (self._pair.fileno(), *self._links):
            self._switchboard.forget(descriptor)
        if self._pidfd is not None:
            self._switchboard.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        for link in list(self._links.values()):
            link.close()
        self._links.clear()
        self._workers.clear()
        self._pair.close()
        if self._report is not None:
            self._read_report()  # for a question that comes later
            self._report.close()
            self._report = None

    def hear_last_words(self) -> None:
        """Wait until what its processes sent before they left has been heard."""
        self._silent.wait(LAST_WORDS)

    # Over a restart of the site

    def hand_over(self, unanswered: Callable[[Link], list[Message]]) -> ChildState:
        """Return what the next program needs to `adopt` it; the switchboard must be paused."""
        return ChildState(
            alias=self.alias,
            pid=self.pid,
            pair=self._pair.fileno(),
            links=[self._hand_over_link(link, unanswered(link)) for link in self._links.values()],
            expected=self._expected,
            is_serving=self.is_serving,
            has_answered=self.has_answered,
            left=None if self.deadline is None else max(self.deadline - time.monotonic(), 0),
            allowed=self.allowed,
        )

    def _hand_over_link(self, link: Link, unanswered: list[Message]) -> LinkState:
        received, unsent = link.hand_over(unanswered)
        return LinkState(
            descriptor=link.fileno(),
            name=link.name,
            received=b64encode(received).decode(),
            unsent=b64encode(unsent).decode(),
            worker=self._workers.get(link.fileno()),
            is_ready=link.fileno() in self._ready,
        )

    @classmethod
    def adopt(
        cls,
        state: ChildState,
        switchboard: Switchboard,
        answer: Callable[[Link, Message], None],
        changed: Callable[[], None],
    ) -> Generation:
        """Go on with a child of the program that this process executed before."""
        process, pair = AdoptedProcess(state.pid), socket.socket(fileno=state.pair)
        adopted = cls(state.alias, process, pair, switchboard, answer, changed)
        adopted._expected = state.expected
        adopted.is_serving = state.is_serving
        adopted.served_from = time.monotonic() if state.is_serving else None
        adopted.has_answered = state.has_answered
        adopted.deadline = None if state.left is None else time.monotonic() + state.left
        adopted.allowed = state.allowed
        for each in state.links:
            adopted._adopt_link(each)
        return adopted

    def _adopt_link(self, state: LinkState) -> None:
        received, unsent = b64decode(state.received), b64decode(state.unsent)
        sock = socket.socket(fileno=state.descriptor)
        self._links[state.descriptor] = Link(sock, state.name, received=received, unsent=unsent)
        if state.worker is not None:
            self._workers[state.descriptor] = state.worker
        if state.is_ready:
            self._ready.add(state.descriptor)

    def resume(self) -> None:
        """Hear what an adopted child has sent since."""
        self.listen()
        for link in list(self._links.values()):
            self._take(link, link.received())
            self._listen_to(link)
