"""The site's answers to the requests of its other processes: see `process.asking`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..wspbus import Bus
from .exchange import Error, Malformed, Reply, Result, read_request, reply_as_message
from .messages import BrokenLink, Link, Message
from .site import LocalSite, reasons

Handler = Callable[[list[Any], Callable[[Reply], None]], None]
"""Answers a request later: it gets the arguments, and a function that any thread calls with the reply."""


class Answers:
    """Answers the requests of other processes in the thread that moves the bus.

    ``post(link, message)`` sends a message without waiting for its reader: `Switchboard.post`.
    """

    def __init__(self, bus: Bus, site: LocalSite, post: Callable[[Link, Message], None]) -> None:
        self._bus = bus
        self._site = site
        self._post = post
        self.handlers: dict[str, Handler] = {}
        """Action -> the function that answers it instead, as the bus may be busy. It must not wait."""
        self._unanswered: dict[int, tuple[Link, Message]] = {}
        self._lock = threading.RLock()  # between the threads that reply and the one that pauses
        self._late: list[tuple[Link, Message, Reply]] | None = None
        """The replies since `pause`."""

    def answer(self, link: Link, message: Message) -> None:
        self._unanswered[id(message)] = link, message
        try:
            request = read_request(message)
        except Malformed as error:  # the process has loaded another version of this package
            self._reply(link, message, Error(str(error)))
            return
        action, args = request.action, request.arguments.get("args", [])
        if (handler := self.handlers.get(action)) is not None:
            handler(args, lambda reply: self._reply(link, message, reply))
        elif action in ("graceful", "restart"):
            self._bus.request(action, lambda error: self._reply(link, message, _outcome(error)))
        elif action == "exit":  # the process that asks ends with the site, so the answer comes first
            self._bus.defer(self._bus.exit)
            self._reply(link, message, Result(None))
        else:
            self._bus.defer(lambda: self._answer_now(link, message, action, args))

    def _answer_now(self, link: Link, message: Message, action: str, args: list[Any]) -> None:
        try:
            reply: Reply = Result(self._site.ask(action, *args))
        except Exception as error:  # the process that asks gets the error, and handles it
            reply = _outcome(error)
        except SystemExit as error:  # a listener raised it: a request of a worker must not end the site
            self._bus.log(f"A listener raised SystemExit({error.code!r}) during {action}.", level=40)
            reply = Error(f"SystemExit: {error}")
        self._reply(link, message, reply)

    def _reply(self, link: Link, message: Message, reply: Reply) -> None:
        trouble = None
        with self._lock:
            if self._late is not None:
                self._late.append((link, message, reply))
                return
            try:
                self._post_reply_or_error(link, str(message.get("action")), reply)
            except BrokenLink as error:
                trouble = error
            except OSError:  # the process that asked has ended
                pass
            finally:
                self._unanswered.pop(id(message), None)
        if trouble is not None:
            self._bus.log(str(trouble), level=30)

    def _post_reply_or_error(self, link: Link, action: str, reply: Reply) -> None:
        try:
            self._post(link, reply_as_message(reply))
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"The result of {action} cannot be sent to another process: {error}."
            self._post(link, reply_as_message(Error(reason)))

    # Over a restart of the site

    def pause(self) -> None:
        """Send no reply from now on: two to one request would make each later one that of another request."""
        with self._lock:
            self._late = []

    def resume(self) -> None:
        """Send the replies since `pause`, as this process executes no other program."""
        with self._lock:
            late, self._late = self._late or [], None
        for link, message, reply in late:
            self._reply(link, message, reply)

    def unanswered(self, link: Link) -> list[Message]:
        """Return the requests over a link that have no answer yet; the next program answers them."""
        return [message for asking, message in list(self._unanswered.values()) if asking is link]


def _outcome(error: Exception | None) -> Reply:
    return Result(None) if error is None else Error(reasons(error))
