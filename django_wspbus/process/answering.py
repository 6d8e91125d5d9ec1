"""The site's answers to what its other processes ask: see `process.asking`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..wspbus import Bus
from .messages import BrokenLink, Link, Message
from .site import LocalSite, reasons


class Answers:
    """Answers what other processes ask of the site, in the thread that moves the bus.

    ``post(link, message)`` sends without waiting for the process that asked: `Switchboard.post`.
    """

    def __init__(self, bus: Bus, site: LocalSite, post: Callable[[Link, Message], None]) -> None:
        self._bus = bus
        self._site = site
        self._post = post
        self._unanswered: dict[int, tuple[Link, Message]] = {}

    def answer(self, link: Link, message: Message) -> None:
        self._unanswered[id(message)] = link, message
        what, args = message["ask"], message.get("args", [])
        if what in ("graceful", "restart"):
            self._bus.request(what, lambda error: self._reply(link, message, _outcome(error)))
        elif what == "exit":  # the asker ends with the site: it cannot wait for that
            self._bus.defer(self._bus.exit)
            self._reply(link, message, {"result": None})
        else:
            self._bus.defer(lambda: self._answer_now(link, message, what, args))

    def _answer_now(self, link: Link, message: Message, what: str, args: list[Any]) -> None:
        try:
            reply: Message = {"result": self._site.ask(what, *args)}
        except Exception as error:  # whatever it is, it is the asker's
            reply = _outcome(error)
        except SystemExit as error:  # of a listener: a question must not end the site
            self._bus.log(f"A listener that {what} called has raised SystemExit({error.code!r}).", level=40)
            reply = {"error": f"SystemExit: {error}"}
        self._reply(link, message, reply)

    def _reply(self, link: Link, message: Message, reply: Message) -> None:
        try:
            self._post_or_say_why_not(link, message["ask"], reply)
        except BrokenLink as error:
            self._bus.log(str(error), level=30)
        except OSError:  # the asker is gone
            pass
        finally:
            self._unanswered.pop(id(message), None)

    def _post_or_say_why_not(self, link: Link, what: str, reply: Message) -> None:
        try:
            self._post(link, reply)
        except (TypeError, ValueError, RecursionError) as error:
            self._post(link, {"error": f"The result of {what} cannot be sent to another process: {error}."})

    def unanswered(self, link: Link) -> list[Message]:
        """Return what was asked over a link and is not answered yet: the next program answers it."""
        return [message for asker, message in list(self._unanswered.values()) if asker is link]


def _outcome(error: Exception | None) -> Message:
    return {"result": None} if error is None else {"error": reasons(error)}
