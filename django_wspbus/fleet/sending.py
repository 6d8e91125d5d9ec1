"""The thread that commands the engine: calls, messages to send, and signs of life."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from .base import Engine, Member, Unavailable
from .commands import Command, Commands
from .connection import Connection, EngineClock
from .envelope import Draft
from .outgoing import HEADER, Outgoing

logger = logging.getLogger("django_wspbus")

T = TypeVar("T")

QUIET = 1.0
"""Seconds after its last message after which a member announces the number of that."""

LEAVES = Unavailable("This process leaves the fleet.")


class Sending(Commands):
    """Calls the engine in a thread: first what other threads ask for, then messages, then a sign of life.

    ``sign(draft)`` returns the bytes of a message; ``describe()`` the member as it is now, or None to leave
    it out of the list; ``announce()`` puts a message with the last number into the queue.
    """

    def __init__(
        self,
        engine: Engine,
        clock: EngineClock,
        sign: Callable[[Draft], bytes],
        describe: Callable[[], Member | None],
        announce: Callable[[], None],
    ) -> None:
        self.engine = engine
        self.connection = Connection("commands", engine.lease)
        self._clock = clock
        self._sign = sign
        self._describe = describe
        self._announce = announce
        self._calls: deque[Command] = deque()
        self._outgoing = Outgoing()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._next_beat = 0.0
        self._quiet_at: float | None = None
        self._announces_after_beat = False
        self.on_beat: list[Callable[[], None]] = []
        """Functions that this thread calls after each sign of life."""

    @property
    def waiting(self) -> int:
        """The number of messages that wait."""
        return len(self._outgoing)

    @property
    def dropped(self) -> int:
        """The number of messages that were dropped as too many waited."""
        return self._outgoing.dropped

    # From any thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="Fleet commands", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Engine], T], done: Callable[[T, Unavailable | None], None]) -> None:
        command = Command(run, done)
        with self._changed:
            is_late = self._is_closing
            if not is_late:
                self._calls.append(command)
                self._changed.notify()
        if is_late:
            command.finish(None, LEAVES)

    def put(self, draft: Draft, size: int = HEADER) -> None:
        """Send a message of about ``size`` bytes soon."""
        with self._changed:
            self._outgoing.put(draft, size)
            self._changed.notify()

    def beat_soon(self) -> None:
        """Give a sign of life at the next opportunity, as something in it has changed."""
        with self._changed:
            self._next_beat = 0.0
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Send what waits, leave the fleet and end the thread, within some seconds."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    # In the thread

    def _run(self) -> None:
        while not self._is_closing:
            with self._changed:
                self._changed.wait_for(self._has_work, self._pause())
            self._log_dropped()
            try:
                self._turn()
            except Unavailable as error:
                self._note_down(error)
            except Exception as error:  # of a caller's function, or an engine of the project's own
                logger.exception("The engine of the fleet failed.")
                self._note_down(Unavailable(f"{type(error).__name__}: {error}"))
        self._leave()

    def _has_work(self) -> bool:
        now = time.monotonic()
        is_due = bool(self._outgoing) or now >= self._next_beat
        return self._is_closing or bool(self._calls) or (is_due and now >= self.connection.retry_at)

    def _pause(self) -> float:
        """Return the seconds until something is due."""
        now = time.monotonic()
        due = now if self._outgoing else min(self._next_beat, self._quiet_at or self._next_beat)
        return max(due, self.connection.retry_at, now) - now

    def _turn(self) -> None:
        self._run_calls()
        if time.monotonic() < self.connection.retry_at:
            return
        if not self.connection.is_up or time.monotonic() >= self._next_beat:
            self._beat()
        self._send_batch()
        if self._quiet_at is not None and time.monotonic() >= self._quiet_at:
            self._quiet_at = None
            self._announces_after_beat = True
            self._announce()

    def _run_calls(self) -> None:
        while self._calls:
            command = self._calls.popleft()
            if time.monotonic() < self.connection.retry_at:
                command.finish(None, self.connection.error)
            elif (error := command.run_on(self.engine)) is not None:
                self._note_down(error)

    def _beat(self) -> None:
        asked = time.monotonic()
        self._next_beat = asked + self.engine.lease / 3  # before it is described: a change asks for another
        member = self._describe()
        self._clock.measure(self.engine.time() if member is None else self.engine.beat(member), asked)
        self.connection.note_up()
        if self._announces_after_beat:
            self._announces_after_beat = False
            self._announce()
        for function in self.on_beat:
            function()

    def _send_batch(self) -> None:
        with self._changed:
            batch = self._outgoing.batch()
        self._log_dropped()
        if not batch:
            return
        # A batch whose outcome is unknown is sent again: receivers drop the numbers that they have.
        self._send(batch)
        with self._changed:
            self._outgoing.sent(batch)
        if any(each.number for each in batch):
            self._quiet_at = time.monotonic() + QUIET

    def _send(self, batch: list[Draft]) -> None:
        self.engine.send([(draft.target, self._sign(draft)) for draft in batch])

    def _log_dropped(self) -> None:
        # The threads that add messages hold locks, and a handler of the log may wait, or broadcast.
        with self._changed:
            begins = self._outgoing.begins_to_drop()
        if begins:
            logger.error("Too many messages wait for the engine of the fleet: the oldest are dropped.")

    def _note_down(self, error: Unavailable) -> None:
        self.connection.note_down(error)
        self._next_beat = max(self._next_beat, self.connection.retry_at)
        self._refuse_calls(error)

    def _refuse_calls(self, error: Unavailable) -> None:
        while self._calls:
            self._calls.popleft().finish(None, error)

    def _leave(self) -> None:
        """Send what waits, and leave the list of members, if the engine answers."""
        try:
            if time.monotonic() >= self.connection.retry_at:
                self._run_calls()
                if not self._clock.is_known:  # the process ends before the thread has begun
                    self._beat()
                while self._outgoing:
                    self._send_batch()
                member = self._describe()
                if member is not None:
                    self.engine.leave(member.id)
        except Unavailable as error:
            self._note_down(error)
        finally:
            self._refuse_calls(LEAVES)
            self.engine.close()
