"""The site's answers to the requests of its other processes: see `process.asking`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..wspbus import Bus
from .messages import BrokenLink, Link, Message
from .site import LocalSite, reasons


class Answers:
    """Answers the requests of other processes in the thread that moves the bus.

    ``post(link, message)`` sends a message without waiting for its reader: `Switchboard.post`.
    """

    def __init__(self, bus: Bus, site: LocalSite, post: Callable[[Link, Message], None]) -> None:
        self._bus = bus
        self._site = site
        self._post = post
        self._unanswered: dict[int, tuple[Link, Message]] = {}

    def answer(self, link: Link, message: Message) -> None:
        self._unanswered[id(message)] = link, message
        request, args = message["ask"], message.get("args", [])
        if request in ("graceful", "restart"):
            self._bus.request(request, lambda error: self._reply(link, message, _outcome(error)))
        elif request == "exit":  # the process that asks ends with the site, so the answer comes first
            self._bus.defer(self._bus.exit)
            self._reply(link, message, {"result": None})
        else:
            self._bus.defer(lambda: self._answer_now(link, message, request, args))

    def _answer_now(self, link: Link, message: Message, request: str, args: list[Any]) -> None:
        try:
            reply: Message = {"result": self._site.ask(request, *args)}
        except Exception as error:  # the process that asks gets the error, and handles it
            reply = _outcome(error)
        except SystemExit as error:  # a listener raised it: a request of a worker must not end the site
            self._bus.log(f"A listener raised SystemExit({error.code!r}) during {request}.", level=40)
            reply = {"error": f"SystemExit: {error}"}
        self._reply(link, message, reply)

    def _reply(self, link: Link, message: Message, reply: Message) -> None:
        try:
            self._post_reply_or_error(link, message["ask"], reply)
        except BrokenLink as error:
            self._bus.log(str(error), level=30)
        except OSError:  # the process that asked has ended
            pass
        finally:
            self._unanswered.pop(id(message), None)

    def _post_reply_or_error(self, link: Link, request: str, reply: Message) -> None:
        try:
            self._post(link, reply)
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"The result of {request} cannot be sent to another process: {error}."
            self._post(link, {"error": reason})

    def unanswered(self, link: Link) -> list[Message]:
        """Return the requests over a link that have no answer yet; the next program answers them."""
        return [message for asking, message in list(self._unanswered.values()) if asking is link]


def _outcome(error: Exception | None) -> Message:
    return {"result": None} if error is None else {"error": reasons(error)}
