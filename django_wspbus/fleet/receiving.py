"""The thread that receives the messages of a fleet."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ..process.fleet import is_reserved
from ..system.rejections import REJECTED, REMEDIES
from .base import Engine, Listener, Unavailable
from .connection import Connection, EngineClock
from .envelope import Message, Rejected, Signer
from .senders import Senders

logger = logging.getLogger("django_wspbus")

RECEIVE_TIMEOUT = 1.0
"""Seconds for which the thread waits for messages before it looks whether it has to end."""

PING = "ping"
"""The kind of a message to all, which shows each of them that messages arrive."""


class Receiver(Protocol):
    """The owner of the messages. Its methods must not wait."""

    def deliver(self, message: Message) -> None:
        """Deliver a message of another member to the processes of this one."""

    def miss(self, sender: str, count: int) -> None:
        """Note that messages of a sender ("host:pid") are missing."""

    def flush(self) -> None:
        """Send on what has been delivered, or is missing: no other message has come together with it."""

    def hear(self, message: Message) -> None:
        """Handle a message that is not for the listeners of the project."""


class Receiving:
    """Receives, verifies and hands on messages, in a thread of its own.

    ``id``: the identifier of this member; ``listens()`` is called whenever it begins to listen; ``commands``:
    the other connection, whose failures the log has already.
    """

    def __init__(
        self,
        engine: Engine,
        clock: EngineClock,
        signer: Signer,
        id: str,  # noqa: A002
        receiver: Receiver,
        senders: Senders,
        listens: Callable[[], None],
        commands: Connection,
    ) -> None:
        self.connection = Connection("messages", engine.lease, logs_after=3)
        self.rejected: Counter[str] = Counter()
        """Messages that were dropped, by reason."""
        self.has_listened = threading.Event()
        """Set once it has listened for the first time."""
        self._engine = engine
        self._clock = clock
        self._signer = signer
        self._id = id
        self._receiver = receiver
        self._senders = senders
        self._listens = listens
        self._commands = commands
        self._wake = threading.Event()
        self._is_closing = False
        self._listener: Listener | None = None
        self._heard_at = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="Fleet messages", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> None:
        self._is_closing = True
        self._wake.set()
        self._cut_off()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    @property
    def silence(self) -> float:
        """Return the seconds since the last message of any member; 0 if it does not listen."""
        return time.monotonic() - self._heard_at if self.connection.is_up else 0.0

    def look(self) -> None:
        """Listen anew if no message arrives, not even one's own; called after each sign of life."""
        self._wake.set()
        if self.silence > self._engine.lease:
            logger.warning("No message of the fleet arrives: listening anew.")
            self._heard_at = time.monotonic()
            self._cut_off()

    def _cut_off(self) -> None:
        if (listener := self._listener) is not None:
            with suppress(Exception):  # of a library: it is closed, or about to be
                listener.close()

    # In the thread

    def note_number(self, message: Message, number: int) -> int:
        """Note the last number of the sender of a message; return how many messages are missing."""
        return self._senders.note(message.epoch, number, is_new=False) or 0

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait(None if not self._clock.is_known else self.connection.retry_at - time.monotonic())
            self._wake.clear()
            if self._clock.is_known and not self._is_closing and time.monotonic() >= self.connection.retry_at:
                self._listen()

    def _listen(self) -> None:
        try:
            self._listener = self._engine.listen(self._id)
            self._heard_at = time.monotonic()
            self.connection.note_up()
            self.has_listened.set()
            self._listens()
            while not self._is_closing:
                for data in self._listener.receive(RECEIVE_TIMEOUT):
                    self._heard_at = time.monotonic()
                    self._receive(data)
                self._receiver.flush()
                self.connection.note_up()
        except Unavailable as error:
            self._note_down(error)
        except Exception as error:  # of an engine of the project's own, or a library
            if not self._is_closing:
                logger.exception("Listening to the engine of the fleet failed.")
                self._note_down(Unavailable(f"{type(error).__name__}: {error}"))
        finally:
            self._cut_off()
            self._listener = None

    def _note_down(self, error: Unavailable) -> None:
        if not self._is_closing:
            self.connection.note_down(error, is_logged=self._commands.is_up)

    def _receive(self, data: bytes) -> None:
        sender = ""  # unknown until the signature is verified
        try:
            message = self._signer.read(data)
            sender = message.sender
            if message.epoch == self._id:
                return
            if message.target not in ("", self._id):
                raise Rejected("misdirected")
            missing = self._senders.check(message, self._clock.now())
        except Rejected as rejected:
            self._reject(rejected.reason, rejected.sender or sender)
            return
        except (ValueError, TypeError, AttributeError):  # a version that we do not know, but signed
            self._reject("version", sender)
            return
        if missing:
            self._receiver.miss(message.sender, missing)
        try:
            self._hand_on(message)
        except Rejected as rejected:
            self._reject(rejected.reason, sender)
        except Exception:  # the messages that follow must arrive
            logger.exception("A message of the fleet was lost.")

    def _reject(self, reason: str, sender: str) -> None:
        self.rejected[reason] += 1
        if self.rejected[reason] == 1:
            logger.warning(
                "The fleet dropped a message %s%s.%s `wspbus status` counts further ones.",
                REJECTED[reason],
                f" (signed by {sender})" if sender else "",
                f" {REMEDIES[reason]}" if reason in REMEDIES else "",
            )

    def _hand_on(self, message: Message) -> None:
        if is_reserved(message.channel):  # an ask has a channel as well
            raise Rejected("built-in")
        if message.kind == "message":
            self._receiver.deliver(message)
        else:
            self._receiver.hear(message)
