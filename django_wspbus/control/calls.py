"""Requests of clients, each of which runs in a thread of its own."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ..wspbus import Refusal
from .protocol import FAILED, MISUSED, Entry, Error, Reply, Request, Result, Step, encode_reply

MOST_CALLS = 16
"""Requests that run at the same time, of each kind (see `kind_of`). A further one gets an error."""

MOST_GREETINGS = 64
"""The same, for the requests by which a client looks whether the site lives."""

SEND_TIMEOUT = 10.0
"""Seconds for a client to read a reply. A client that takes longer counts as gone."""

# A project may have restored SIGPIPE's default, which ends a process that writes to a closed socket.
NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)

T = TypeVar("T")


class ClientGone(Exception):
    """The client has closed the connection, or does not read."""


class Misuse(Exception):
    """The request is wrong: there is no such action, or an argument is missing or of another type."""


class Call:
    """One request of a client, and the connection for its replies.

    `step`, `record` and `send` raise `ClientGone` if the client does not read any more.
    """

    def __init__(self, request: Request, connection: socket.socket) -> None:
        self.request = request
        self.then: Request | None = None
        """The request that the next program has to do after a restart, instead of an answer: none."""
        self.is_answered = False
        """True if the last reply was sent, or if another program sends it."""
        self.is_held = False
        """True if the connection stays open after the result, until this process ends."""
        self._connection = connection
        self._connection.settimeout(SEND_TIMEOUT)
        self._lock = threading.Lock()

    @property
    def action(self) -> str:
        return self.request.action

    @property
    def arguments(self) -> dict[str, Any]:
        return self.request.arguments

    def fileno(self) -> int:
        return self._connection.fileno()

    def argument(self, name: str, kind: type[T], default: T | None = None) -> T:
        """Return an argument of a type; `Misuse` if it has another one, or is missing without a default."""
        value = self.arguments.get(name, default)
        # True is an int for Python, and not for the author of a request.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise Misuse(f"{self.action} needs {name!r}, of the type {kind.__name__}.")
        return value

    def step(self, text: str) -> None:
        """Show the client a step of the action."""
        self.send(Step(text))

    def record(self, values: dict[str, Any]) -> None:
        """Send the client a part of the answer."""
        self.send(Entry(values))

    def send(self, reply: Reply) -> None:
        line = encode_reply(reply)
        try:
            with self._lock:
                self._connection.sendall(line, NO_SIGNAL)
        except OSError as error:  # TimeoutError is one, too
            self.cut_off()
            raise ClientGone(str(error)) from None

    def cut_off(self) -> None:
        """End the connection for both sides; also in other processes that have it."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    @property
    def is_gone(self) -> bool:
        """True if the client has closed the connection. Half of it suffices to read the replies."""
        return has_ended(self._connection)

    def wait_until_gone(self, seconds: float) -> bool:
        """Wait some seconds at most for the client to close the connection; return whether it has."""
        return has_ended(self._connection, seconds)

    def detach(self) -> int:
        """Leave the rest of the replies to another program; return the descriptor for it."""
        self.is_answered = True
        with self._lock:
            return self._connection.detach()

    def hold(self, reply: Reply) -> None:
        """Send the last reply, and keep the connection open until this process ends, as a sign of that."""
        self.is_answered = self.is_held = True
        self.send(reply)
        # Only the kernel closes it now. Python would do that some time before the process has ended.
        self._connection.detach()

    def close(self) -> None:
        self._connection.close()


Action = Callable[[Call], Any]
"""An action returns a result that JSON knows; a `Refusal` or RuntimeError is the reason if it fails."""


class Calls:
    """Runs ``answer(call)`` for each request in a thread, and sends the client what it returns.

    ``failed(action)`` is called in the ``except`` clause of an answer that raises an unexpected error.
    """

    def __init__(self, answer: Action, failed: Callable[[str], object]) -> None:
        self._answer = answer
        self._failed = failed
        self._running: set[Call] = set()
        self._lock = threading.Lock()

    def begin(self, request: Request, connection: socket.socket) -> None:
        """Answer a request in a new thread, which closes the connection at its end."""
        call = Call(request, connection)
        with self._lock:
            kind, most = kind_of(request)
            is_free = sum(kind_of(each.request)[0] == kind for each in self._running) < most
            if is_free:
                self._running.add(call)
        if not is_free:
            text = f"The site is busy: it answers {most} other requests. Try again."
            send_last(connection, Error(text))
            return
        # A daemon thread, because a client that waits must not keep the process alive.
        thread = threading.Thread(target=self._run, args=(call,), name=f"Control {call.action}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left, or the interpreter ends
            with self._lock:
                self._running.discard(call)
            send_last(connection, Error("The site cannot start a thread for the request."))

    def _run(self, call: Call) -> None:
        try:
            reply = self._reply_to(call)
            if not call.is_answered and reply is not None:
                with contextlib.suppress(ClientGone):
                    self._send(call, reply)
        finally:
            with self._lock:
                self._running.discard(call)
            if not call.is_held:
                call.close()

    def _reply_to(self, call: Call) -> Reply | None:
        try:
            return Result(self._answer(call))
        except ClientGone:
            return None
        except Misuse as error:
            return Error(str(error), MISUSED)
        except (Refusal, RuntimeError) as error:
            return Error(str(error) or repr(error), FAILED)
        except BaseException as error:  # SystemExit of a listener would end the thread without an answer
            self._failed(call.action)
            return Error(f"{call.action} failed: {type(error).__name__}: {error}", FAILED)

    def _send(self, call: Call, reply: Reply) -> None:
        try:
            call.send(reply)
        except (TypeError, ValueError, RecursionError) as error:
            call.send(Error(f"The result of {call.action} cannot be sent: {error}.", FAILED))


def kind_of(request: Request) -> tuple[str, int]:
    """Return the kind of a request, and how many of the kind run at the same time.

    Clients that follow the log stay for long, and must not keep out those that order the site; nor must any
    client keep another from seeing that the site lives.
    """
    if request.action in ("hello", "ping"):
        return "greeting", MOST_GREETINGS
    is_following = request.action == "logs" and bool(request.arguments.get("follow"))
    return ("following" if is_following else "other"), MOST_CALLS


def has_ended(connection: socket.socket, within: float = 0) -> bool:
    """Return whether a connection has ended in both directions, or does so within some seconds."""
    poll = select.poll()
    poll.register(connection, 0)  # the end is always reported
    return bool(poll.poll(within * 1000))


def send_last(connection: socket.socket, reply: Reply) -> None:
    """Send a client the last reply without waiting for it, and close the connection."""
    with connection, contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.send(encode_reply(reply), NO_SIGNAL)


class Actions:
    """A table of actions by name; itself an `Action`, which looks up the one that the client asks for."""

    def __init__(self, table: dict[str, Action]) -> None:
        self.table = table

    def __call__(self, call: Call) -> Any:
        action = self.table.get(call.action)
        if action is None:
            known = ", ".join(sorted(self.table))
            raise Misuse(f"The site does not know the action {call.action[:200]!r}. It knows: {known}.")
        return action(call)
