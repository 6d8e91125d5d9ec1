"""`bus.site`: the way to the site process from any process of the site."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from .link import Link, Message, hand_in
from .wspbus import Bus, ChannelFailures, Refusal


class SiteUnreachable(Exception):
    """There is no site process, or it does not answer."""


class Site:
    """What can be asked of a site. `SiteUnreachable` is raised where there is none."""

    def graceful(self) -> None:
        """Renew what serves; return once the new code does. RuntimeError, with the reason, if it does not."""
        self.ask("graceful")

    def restart(self) -> None:
        """Have the site restarted; return once its new code has been tried. RuntimeError if it is refused."""
        self.ask("restart")

    def exit(self) -> None:
        """Have the site exit; return once that is taken on."""
        self.ask("exit")

    def publish(self, channel: str, *args: Any) -> list[Any]:
        """Publish on the bus of the site process; arguments and results must be what JSON knows."""
        result: list[Any] = self.ask("publish", channel, *args)
        return result

    def status(self) -> dict[str, Any]:
        """Return ``{"pid": int, "state": str, "reason": str, "servers": {alias: {...}}}``, and more."""
        result: dict[str, Any] = self.ask("status")
        return result

    def ask(self, what: str, *args: Any) -> Any:
        raise SiteUnreachable(
            "This process belongs to no site: bus.site needs `manage.py runbus`, or one of its workers."
        )


class NoSite(Site):
    """The site of a process that belongs to none."""


class LocalSite(Site):
    """The site, in its own process."""

    def __init__(self, bus: Bus, status: Callable[[], dict[str, Any]]) -> None:
        self._bus = bus
        self._status = status
        self._pid = os.getpid()
        self._unanswered: dict[int, tuple[Link, Message]] = {}

    def ask(self, what: str, *args: Any) -> Any:
        if os.getpid() != self._pid:
            raise SiteUnreachable("This process was forked from the site process, and is not part of it.")
        if what == "status":
            return self._status()
        if what == "publish":
            return self._bus.publish(*args)
        if what == "exit" and threading.current_thread() is not threading.main_thread():
            self._bus.defer(self._bus.exit)  # a request that asks is to be answered before
            return None
        if what == "exit":
            return self._bus.exit()
        if what in ("graceful", "restart"):
            return self._renew(what)
        raise ValueError(f"A site knows no {what!r}.")

    def _renew(self, what: str) -> None:
        try:
            getattr(self._bus, what)()
        except ChannelFailures as failures:  # the same as from any other process
            raise RuntimeError(_reasons(failures)) from failures

    def answer(self, link: Link, message: Message) -> None:
        """Answer what another process asked, in the thread that moves the bus."""
        self._unanswered[id(message)] = link, message
        what, args = message["ask"], message.get("args", [])
        if what in ("graceful", "restart"):
            self._bus.request(what, lambda error: self._reply(link, message, _outcome(error)))
        elif what == "exit":  # the asker goes with the site: it cannot wait for the end
            self._bus.defer(self._bus.exit)
            self._reply(link, message, {"result": None})
        else:
            self._bus.defer(lambda: self._answer_now(link, message, what, args))

    def _answer_now(self, link: Link, message: Message, what: str, args: list[Any]) -> None:
        try:
            reply: Message = {"result": self.ask(what, *args)}
        except Exception as error:  # whatever it is, it is the asker's
            reply = _outcome(error)
        try:
            self._reply(link, message, reply)
        except (TypeError, ValueError, RecursionError) as error:
            told = f"The result of {what} cannot be sent to another process: {error}"
            self._reply(link, message, {"error": told})

    def _reply(self, link: Link, message: Message, reply: Message) -> None:
        with contextlib.suppress(OSError):  # the asker is gone
            link.send(reply)
        self._unanswered.pop(id(message), None)

    def unanswered(self, link: Link) -> list[Message]:
        """Return what was asked over a link and not answered yet: the next program is to answer it."""
        return [message for asker, message in self._unanswered.values() if asker is link]


def _outcome(error: Exception | None) -> Message:
    if error is None:
        return {"result": None}
    if isinstance(error, ChannelFailures):
        return {"error": _reasons(error)}
    return {"error": _reason(error)}


def _reasons(failures: ChannelFailures) -> str:
    return "\n".join(map(_reason, failures.get_instances()))


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"


class RemoteSite(Site):
    """The site, from a process of a child server. Each process that forks off makes a link of its own."""

    def __init__(self, pair: socket.socket, role: str) -> None:
        self._pair = pair
        self._role = role
        self._pid = os.getpid()
        self._connection: _Connection | None = None

    def ask(self, what: str, *args: Any) -> Any:
        takes_long = what in ("graceful", "restart")  # others may ask meanwhile
        try:
            connection = self._open("other") if takes_long else self._connect()
            try:
                return connection.ask({"ask": what, "args": args})
            finally:
                if takes_long:
                    connection.link.close()
        except OSError as error:
            raise SiteUnreachable(f"The site process does not answer: {error}") from error

    def tell(self, **message: Any) -> None:
        """Send news that want no answer; lost if the site is gone."""
        with contextlib.suppress(OSError):
            self._connect().link.send(message)

    def play(self, role: str) -> None:
        """Say what this process is from now on."""
        self._role = role
        self._pid = os.getpid()
        self._connect()

    def _connect(self) -> _Connection:
        connection = self._connection
        role = self._role if os.getpid() == self._pid else "other"  # forked off, whatever for
        if connection is None or connection.pid != os.getpid() or connection.role != role:
            if connection is not None:
                connection.link.close()  # this process's copy of it
            self._connection = connection = self._open(role)
        return connection

    def _open(self, role: str) -> _Connection:
        link = hand_in(self._pair)
        link.send({"hello": role, "pid": os.getpid()})
        return _Connection(link, role)


class _Connection:
    def __init__(self, link: Link, role: str) -> None:
        self.link = link
        self.role = role
        self.pid = os.getpid()
        self._lock = threading.Lock()

    def ask(self, message: Message) -> Any:
        with self._lock:
            self.link.send(message)
            replies: list[Message] | None = []
            while not replies:
                replies = self.link.receive()
                if replies is None:
                    raise ConnectionError("it ended the connection")
        (reply,) = replies
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["result"]
