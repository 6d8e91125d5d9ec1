"""The probes of a site: a little HTTP server, off the path of its requests, that tells how the site is."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl
from weakref import WeakSet

from django.apps import apps
from django.db import connections

from ..link import Switchboard
from ..plugin import Plugin
from ..wspbus import Bus

CHANNEL = "health"
"""On which apps subscribe their checks."""

TIME_TO_CHECK = 0.8
"""Seconds that all checks have together: Kubernetes waits one for the answer."""

TIME_TO_ASK = 2
"""Seconds that a client has to send its request."""

TIME_TO_END = 1
"""Seconds that the exit of the bus waits for answers and checks under way."""

MOST_CONNECTIONS = 32
"""At once; further ones wait in the queue of the socket."""

SERVING = ("ready", "reloading")

Check = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """How a site is.

    ``state``: "starting", "ready", "reloading", "draining" or "failed". ``reason``: for people.
    ``details``: what the JSON has besides, in values that it knows.
    """

    state: str
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a probe. ``checks``: name -> what is wrong, "" if nothing is."""

    is_good: bool
    condition: Condition
    checks: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        state, reason = self.condition.state, self.condition.reason
        return " ".join(f"{state}: {reason}".split()) if reason else state

    def json(self) -> str:
        told = {
            "status": "ok" if self.is_good else "unavailable",
            "state": self.condition.state,
            "reason": self.condition.reason,
            "checks": {name: reason or "ok" for name, reason in self.checks.items()},
        }
        return json.dumps({**told, **self.condition.details}, default=str)


class Probes(Plugin):
    """Answers ``/livez`` and ``/readyz`` from threads of the site process, one for each connection.

    ``sockets()``: those to answer on, bound and listening; the site closes them, after this plugin's
    ``exit``. Until then it goes on answering, also while the site drains. The ``switchboard`` tells
    of connections, so that there is no thread, and nothing wakes, while nobody asks.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        sockets: Callable[[], list[socket.socket]],
        switchboard: Switchboard,
        condition: Callable[[], Condition],
    ) -> None:
        super().__init__(bus)
        self._sockets = sockets
        self._switchboard = switchboard
        self._condition = condition
        self._lock = threading.RLock()
        self._listening: list[socket.socket] = []
        self._connections: set[socket.socket] = set()
        self._threads: WeakSet[threading.Thread] = WeakSet()
        self._checks = Checks(lambda: bus.plan(CHANNEL), self._call_in_thread)
        self._failing: set[str] = set()
        self._is_blind = False

    # What it tells

    def _report_life(self) -> Report:
        """Report that this process answers, whatever its state."""
        return Report(True, self._look())

    def _report_readiness(self) -> Report:
        """Report whether the site serves, and the checks of its apps find nothing wrong."""
        condition = self._look()
        if condition.state not in SERVING:
            return Report(False, condition)
        checks = self._checks.run()
        self._note(checks)
        condition = self._look()  # again, as it may drain by now
        if condition.state not in SERVING:
            return Report(False, condition, checks)
        failures = [f"{name}: {reason}" for name, reason in checks.items() if reason]
        if failures:
            condition = replace(condition, state="failed", reason="; ".join(failures))
            return Report(False, condition, checks)
        return Report(True, condition, checks)

    def _look(self) -> Condition:
        try:
            condition = self._condition()
        except Exception as error:  # whatever it is, a probe wants an answer
            with self._lock:
                was_blind, self._is_blind = self._is_blind, True
            if not was_blind:
                self.bus.log("The condition of the site cannot be told", level=40, traceback=True)
            return Condition("failed", _told(error))
        self._is_blind = False
        return condition

    def _note(self, checks: Mapping[str, str]) -> None:
        """Log which checks have begun to fail, and which no longer do: few who probe show the answer."""
        failing = {name for name, reason in checks.items() if reason}
        with self._lock:
            before, self._failing = self._failing, failing
        for name in sorted(failing - before):
            self.bus.log(f"The check {name} fails: {checks[name]}", level=30)
        for name in sorted(before - failing):
            self.bus.log(f"The check {name} no longer fails.")

    # How it answers

    def start(self) -> None:
        with self._lock:
            if self._listening:  # it outlives a stop
                return
            for sock in self._sockets():
                listener = sock.dup()
                listener.setblocking(False)  # a client may be gone before it is accepted
                self._listening.append(listener)
            self._watch()

    start.priority = 21  # type: ignore[attr-defined]  # so that "starting" is seen

    def _watch(self) -> None:
        for listener in self._listening:
            self._switchboard.watch(listener.fileno(), partial(self._accept, listener))

    def _forget(self) -> None:
        for listener in self._listening:
            self._switchboard.forget(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection and hand it to a thread of its own."""
        try:
            with self._lock:
                connection, _ = listener.accept()
                self._connections.add(connection)
                if len(self._connections) == MOST_CONNECTIONS:
                    self._forget()
                try:
                    self._call_in_thread("Probe", partial(self._answer, connection))
                except RuntimeError:  # no thread to be had
                    self._close(connection)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.1)  # until a descriptor is free; it is readable all the while

    def _answer(self, connection: socket.socket) -> None:
        try:
            ProbeHandler(connection, {"/livez": self._report_life, "/readyz": self._report_readiness})
        except OSError:
            pass  # the client is gone, or has taken too long
        except Exception:
            self.bus.log("A probe was not answered", level=40, traceback=True)
        finally:
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        with self._lock:
            connection.close()
            self._connections.discard(connection)
            if len(self._connections) == MOST_CONNECTIONS - 1:
                self._watch()

    def _call_in_thread(self, name: str, function: Callable[[], None]) -> None:
        # A daemon, as a check that hangs must not keep the process alive.
        thread = threading.Thread(target=function, name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def exit(self) -> None:
        """Answer who has asked; what takes too long, or hangs, is named and left behind."""
        with self._lock:
            self._forget()
            for listener in self._listening:
                listener.close()
            self._listening = []
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client is gone
                    connection.shutdown(socket.SHUT_RD)  # no request is to come any more
        deadline = time.monotonic() + TIME_TO_END
        while (threads := self._running()) and (left := deadline - time.monotonic()) > 0:
            threads[0].join(left)
        if threads:
            names = ", ".join(sorted(thread.name for thread in threads))
            self.bus.log(f"Not waited for any longer: {names}", level=30)

    exit.priority = 89  # type: ignore[attr-defined]  # before the sockets are closed

    def _running(self) -> list[threading.Thread]:
        """Return our threads, but for this one: a check may have told the bus to exit."""
        here = threading.current_thread()
        return [each for each in threading.enumerate() if each in self._threads and each is not here]


class ProbeHandler(BaseHTTPRequestHandler):
    """One request on a connection, and its answer. ``reports``: path -> what makes the report."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # of what is no request at all, too: it is told so

    def __init__(self, connection: socket.socket, reports: Mapping[str, Callable[[], Report]]) -> None:
        self.reports = reports
        super().__init__(connection, None, None)  # type: ignore[arg-type]  # which it only keeps

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(Request(self.connection))

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if self.parse_request():  # else it has told the client what is wrong
            self._respond()

    def _respond(self) -> None:
        path, _, query = self.path.partition("?")
        if path not in self.reports:
            self._send(HTTPStatus.NOT_FOUND, f"Here are {' and '.join(self.reports)}.")
        elif self.command not in ("GET", "HEAD"):
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD are allowed.", Allow="GET, HEAD")
        else:
            report = self.reports[path]()
            status = HTTPStatus.OK if report.is_good else HTTPStatus.SERVICE_UNAVAILABLE
            accept = ",".join(self.headers.get_all("Accept", []))
            if ("format", "json") in parse_qsl(query) or prefers_json(accept):
                self._send(status, report.json(), "application/json")
            else:
                self._send(status, report.text())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        status = HTTPStatus(code)
        self._send(status, message or status.phrase)

    def _send(
        self, status: HTTPStatus, text: str, kind: str = "text/plain; charset=utf-8", **headers: str
    ) -> None:
        body = f"{text}\n".encode(errors="backslashreplace")
        self.connection.settimeout(TIME_TO_ASK)
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Request(io.RawIOBase):
    """What a client sends, until `TIME_TO_ASK` is over: a socket's own timeout begins anew with each byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + TIME_TO_ASK

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(self._deadline - time.monotonic(), 0))
        return self._connection.recv_into(buffer)


def prefers_json(accept: str) -> bool:
    """Whether an Accept header names JSON, and no kind of text before it, or above it by its q."""
    best, chosen = 0.0, ""
    for part in accept.lower().split(","):
        kind, *parameters = (each.strip() for each in part.split(";"))
        weights = [match[1] for each in parameters if (match := re.fullmatch(r"q=([01](\.\d*)?)", each))]
        weight = float(weights[0]) if weights else 1.0
        if kind in ("application/json", "text/plain", "text/html") and weight > best:
            best, chosen = weight, kind
    return chosen == "application/json"


@dataclass(eq=False, slots=True)
class Run:
    """A check under way. ``reason``: what is wrong, "" if nothing is, None as long as it runs."""

    begun: float
    reason: str | None = None
    again: bool = False


class Checks:
    """Makes all checks at once, each in a thread of its own, of which a check never has two.

    ``listeners()`` are the checks. Who asks while one is being made waits for the same run. One
    that hangs fails until it comes back, and is made anew for those who wait for it then.
    """

    def __init__(
        self,
        listeners: Callable[[], Iterable[Check]],
        call_in_thread: Callable[[str, Callable[[], None]], None],
    ) -> None:
        self._listeners = listeners
        self._call_in_thread = call_in_thread
        self._changed = threading.Condition()
        self._runs: dict[Check, Run] = {}

    def run(self) -> dict[str, str]:
        """Return what is wrong with each, by name, "" if nothing is, within `TIME_TO_CHECK` seconds."""
        deadline = time.monotonic() + TIME_TO_CHECK
        with self._changed:
            runs = {name: self._join(name, check) for name, check in _named(self._listeners())}
            self._changed.wait_for(
                lambda: all(run.reason is not None for run in runs.values()),
                max(deadline - time.monotonic(), 0),
            )
            return {name: _outcome(run) for name, run in runs.items()}

    def _join(self, name: str, check: Check) -> Run:
        run = self._runs.get(check)
        if run is not None:
            run.again = run.again or time.monotonic() - run.begun > TIME_TO_CHECK
            return run
        run = Run(time.monotonic())
        try:
            self._call_in_thread(f"Check {name}", partial(self._make, check, run))
        except RuntimeError as error:  # no thread to be had
            run.reason = _told(error)
        else:
            self._runs[check] = run
        return run

    def _make(self, check: Check, run: Run) -> None:
        while True:
            reason = _reason(check)
            with self._changed:
                if not run.again:
                    run.reason = reason
                    del self._runs[check]
                    self._changed.notify_all()
                    return
                run.again, run.begun = False, time.monotonic()


def _reason(check: Check) -> str:
    try:
        try:
            result = check()
        finally:
            if apps.ready:  # on a bare bus there may be no Django that could have any
                connections.close_all()
    except BaseException as error:  # SystemExit, too, is for its thread and not for the process
        return _told(error)
    if result is False:
        return "returned False"
    return result if isinstance(result, str) else ""


def _outcome(run: Run) -> str:
    if run.reason is None:
        return f"hangs: no answer for {time.monotonic() - run.begun:.1f} s"
    return run.reason


def _named(checks: Iterable[Check]) -> Iterator[tuple[str, Check]]:
    """Yield checks, each with a name that no other has."""
    names: Counter[str] = Counter()
    for check in checks:
        name = _name(check)
        names[name] += 1
        yield (name if names[name] == 1 else f"{name} ({names[name]})"), check


def _name(check: Any) -> str:
    while isinstance(check, partial):
        check = check.func
    if not hasattr(check, "__qualname__"):
        check = type(check)
    module = getattr(check, "__module__", None)  # methods of built-in types have none
    return f"{module}.{check.__qualname__}" if module else str(check.__qualname__)


def _told(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
