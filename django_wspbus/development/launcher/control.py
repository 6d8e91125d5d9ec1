"""The control socket in development. It belongs to the launcher, so that it answers while no code boots.

While the site serves, the launcher passes the connection of each client on to it. Requests run in threads of
their own; what they want of the launcher is done in its loop.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

import django_wspbus

from ...control import address
from ...control.calls import Call, Calls, ClientGone
from ...control.identity import introduction
from ...control.protocol import Error, Request, Result
from ...control.server import ControlServer
from ...process.messages import Message
from ...successor.state import WaitingClient
from ...system.ownership import unlink_same
from ..launch import ClientRequest
from .boots import Boot, Boots
from .child import Child
from .start import LauncherStart

TIME_TO_TAKE = 0.7
"""Seconds for the site to take the connection of a client. Then the launcher answers that it hangs."""

TIME_TO_DELIVER = 5.0
"""Seconds for the loop of the launcher to pass a connection on. Then the launcher answers that it is busy."""

TIME_TO_ANSWER = 1.0
"""Seconds that the end of the launcher waits until clients have been sent the outcome."""

LOOK_INTERVAL = 0.5
"""Seconds between two looks whether a client that waits for a boot is still there."""


class Loop(Protocol):
    """The part of the launcher's loop that clients control."""

    child: Child | None

    def post(self, child: Child, message: Message, descriptors: list[int]) -> None: ...

    def request_exit(self, number: int) -> None: ...

    def boot_again(self) -> None: ...


class Delivery:
    """A connection for the site. The loop posts it, unless no site serves; the site takes or declines it."""

    def __init__(self) -> None:
        self.is_handled = threading.Event()
        self.is_posted = False
        self.is_given_up = False
        self.lock = threading.Lock()
        self.is_answered = threading.Event()
        self.is_taken = False


class LauncherControl:
    """Answers the clients of the control socket, or has the site answer them.

    ``wake()`` makes the loop call `attend`; ``say(line)`` writes a
    line to the terminal.
    """

    def __init__(self, start: LauncherStart, wake: Callable[[], None], say: Callable[[str], None]) -> None:
        self.boots = Boots()
        self._settings = start.settings
        self._directory = start.invocation.directory
        self._born = time.monotonic()
        self._wake = wake
        self._say = say
        self._orders: queue.SimpleQueue[Callable[[Loop], None]] = queue.SimpleQueue()
        self._deliveries: dict[int, Delivery] = {}
        self._numbers = itertools.count()
        self._until_end: list[int] = []
        """Descriptors of connections whose end shows the end of the launcher."""
        self._stopping: list[threading.Event] = []
        self._calls = Calls(self._answer, self._failed)
        self._waiting = Calls(self._answer_after_boot, self._failed)
        self._state = None if isinstance(start.control, bool) else start.control
        self._socket = self._listen(makes_one=start.control is True)
        self._file = self._file_of_socket()
        self._server = self._serve()

    def _listen(self, *, makes_one: bool) -> socket.socket | None:
        if self._state is not None:  # a file, which needs what only the command can import
            os.set_inheritable(self._state.descriptor, False)
            return socket.socket(fileno=self._state.descriptor)
        try:
            return address.listen(os.getpid())[0] if makes_one else None
        except OSError as error:
            self._say_why_not(error)
            return None

    def _file_of_socket(self) -> tuple[str, tuple[int, int]] | None:
        if self._state is not None and self._state.path is not None:
            return self._state.file
        return None if self._socket is None else address.file_of(self._socket)

    def _serve(self) -> ControlServer | None:
        if self._socket is None:
            return None
        try:
            server = ControlServer(self._socket, self._calls.begin, self._failed)
        except OSError as error:
            self._say_why_not(error)
            self._close_socket()  # else clients would wait in its queue
            return None
        threading.Thread(target=server.run, name="Control", daemon=True).start()
        return server

    def _say_why_not(self, error: OSError) -> None:
        self._say(f"The control socket cannot be made: {error.strerror}. `wspbus` does not find this site.")

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._file is not None:
            with contextlib.suppress(OSError):
                unlink_same(*self._file)
            self._file = None

    def _failed(self, action: str = "") -> None:
        self._say(traceback.format_exc().rstrip())

    # For the loop

    def attend(self, loop: Loop) -> None:
        """Do what clients want of the launcher."""
        while not self._orders.empty():
            self._orders.get()(loop)

    def note_taken(self, number: int, *, is_taken: bool) -> None:
        """Note whether the site answers the client of a connection that was passed on."""
        if (delivery := self._deliveries.get(number)) is not None:
            delivery.is_taken = is_taken
            delivery.is_answered.set()

    def note_end_of_site(self) -> None:
        """Note that the site has ended: it will not take the connections that it has got at last."""
        for delivery in list(self._deliveries.values()):
            if delivery.is_posted:
                delivery.is_answered.set()

    def note_waiting(self, clients: list[Message], descriptors: list[int]) -> None:
        """Take over clients of a site that is about to be replaced: the outcome is for them."""
        for values, descriptor in zip(clients, descriptors, strict=False):
            client = WaitingClient(**{**values, "descriptor": descriptor})
            then = {"action": client.action, "arguments": client.arguments}
            arguments = {"after": self.boots.last.number, "began": client.began, "then": then}
            self._waiting.begin(Request("restart", arguments), socket.socket(fileno=descriptor))

    def close(self) -> None:
        """Answer the clients that wait for the end, and close the socket."""
        self.boots.end()
        deadline = time.monotonic() + TIME_TO_ANSWER
        for is_answered in list(self._stopping):
            is_answered.wait(max(deadline - time.monotonic(), 0))
        if self._server is not None:
            self._server.end()
        self._close_socket()

    # Requests, each in a thread of its own

    def _answer(self, call: Call) -> Any:
        if call.action == "hello":
            return introduction(self._settings, self._directory)
        if self._pass_on(call):
            return None
        if call.action == "ping":
            return None
        if call.action == "status":
            return self._status()
        if call.action == "stop":
            return self._stop(call)
        if call.action in ("graceful", "restart") and "fleet" not in call.arguments:
            return self._boot_again(call)
        raise RuntimeError(self._why_not())

    def _pass_on(self, call: Call) -> bool:
        """Pass a client on to the site; return False if none serves."""
        if self.boots.last.state != "serving":
            return False
        number, delivery = next(self._numbers), Delivery()
        self._deliveries[number] = delivery
        try:
            self._order(lambda loop: self._deliver(loop, number, delivery, call))
            if not delivery.is_handled.wait(TIME_TO_DELIVER):
                with delivery.lock:  # what is not posted by now must not be posted later
                    delivery.is_given_up = not delivery.is_posted
                if delivery.is_given_up:
                    raise RuntimeError("The launcher is busy. Try again.")
            is_answered = delivery.is_posted and delivery.is_answered.wait(TIME_TO_TAKE)
        finally:
            del self._deliveries[number]
        if delivery.is_taken:
            descriptor = call.detach()
            if call.action == "stop":
                self._until_end.append(descriptor)
            else:
                os.close(descriptor)
        elif delivery.is_posted and not is_answered:
            self._answer_for_hanging_site(call)
        return delivery.is_taken or call.is_answered

    def _deliver(self, loop: Loop, number: int, delivery: Delivery, call: Call) -> None:
        """Send the site a connection; in the loop."""
        child = loop.child
        try:
            with delivery.lock:
                if child is None or not child.serves or delivery.is_given_up:
                    return
                delivery.is_posted = True
                request = ClientRequest(number, call.action, call.arguments)
                loop.post(child, {"control": asdict(request)}, [call.fileno()])
        finally:
            delivery.is_handled.set()

    def _answer_for_hanging_site(self, call: Call) -> None:
        pid = self.boots.last.pid
        text = f"The site process {pid} does not answer: it is stopped, or C code holds the GIL."
        if call.action == "stop":
            call.step(f"{text} Ending it.")
            self._stop(call)
            return
        if call.action == "stacks":
            from ...control.hanging import stacks_in_place_of_site  # with more than the launcher needs

            call.step(f"{text} These are the stacks of its own process:")
            call.send(Result(stacks_in_place_of_site(pid)))
        else:
            call.send(Error(text))
        call.cut_off()  # the site has the connection as well, and must not answer it any more
        call.is_answered = True

    def _status(self) -> dict[str, Any]:
        boot, now = self.boots.last, time.monotonic()
        facts = introduction(self._settings, self._directory)
        is_broken = boot.state == "failed"
        return {
            **{name: facts[name] for name in ("pid", "project", "settings", "directory")},
            "state": "STOPPED" if is_broken else "STARTING",
            "condition": "failed" if is_broken else "starting",
            "reason": boot.reason,
            "well": False,
            "since": now - boot.since,
            "uptime": now - self._born,
            "versions": {
                "django-wspbus": django_wspbus.__version__,
                "Python": ".".join(map(str, sys.version_info[:3])),
            },
            "servers": {},
            "last_failure": boot.text or None,
            "last_operation": None,
        }

    def _why_not(self) -> str:
        boot = self.boots.last
        if boot.state == "failed":
            return f"The code does not boot: {boot.text or boot.reason}"
        return "The site is starting. Try again when it serves."

    def _stop(self, call: Call) -> None:
        began, is_answered = time.monotonic(), threading.Event()
        self._stopping.append(is_answered)
        try:
            self._order(lambda loop: loop.request_exit(signal.SIGTERM))
            while self.boots.wait(lambda boot: boot.state == "ended", LOOK_INTERVAL) is None:
                pass
            seconds = time.monotonic() - began
            call.hold(Result({"message": f"Stopped in {seconds:.2f} s.", "seconds": seconds}))
        finally:
            is_answered.set()

    def _boot_again(self, call: Call) -> dict[str, Any]:
        after, began = self.boots.last.number, time.monotonic()
        call.step("booting the site")
        self._order(lambda loop: loop.boot_again())
        return self._outcome(call, after, began)

    def _answer_after_boot(self, call: Call) -> Any:
        """Answer a client that an earlier site process has handed back."""
        result = self._outcome(call, call.arguments["after"], call.arguments["began"])
        then = call.arguments["then"]
        if then["action"] is None:
            return result
        call.request = Request(**then)
        return self._answer(call)

    def _outcome(self, call: Call, after: int, began: float) -> dict[str, Any]:
        """Wait for the outcome of a boot after that with a number; RuntimeError if it fails."""

        def is_decided(boot: Boot) -> bool:
            return boot.state == "ended" or (boot.number > after and boot.state != "starting")

        while (boot := self.boots.wait(is_decided, LOOK_INTERVAL)) is None:
            if call.is_gone:
                raise ClientGone
        if boot.state == "ended":
            raise RuntimeError("The site exits.")
        if boot.state == "failed":
            raise RuntimeError(self._why_not())
        seconds = time.monotonic() - began
        return {"message": f"Restarted in {seconds:.2f} s.", "seconds": seconds}

    def _order(self, function: Callable[[Loop], None]) -> None:
        self._orders.put(function)
        self._wake()
