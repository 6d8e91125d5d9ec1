"""Messages between the processes of a site: JSON over stream sockets, with file descriptors."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from .encoding import HEADER, LARGEST, MOST_DESCRIPTORS, NO_SIGNAL, VERSION, Part, encode, split
from .encoding import Message as Message
from .outbox import Offered, Outbox

MOST_UNSENT = 4 * LARGEST
"""Bytes that may wait for a process that does not read. A link with more is closed."""

READ_SIZE = 2**18
"""Bytes read in one call."""

RELAUNCH = 3
"""The exit status with which a process asks the launcher to start it again, as in django.utils.autoreload."""


class BrokenLink(ConnectionError):
    """The process at the other end broke a rule, which the error names. The link is closed."""


class Received(NamedTuple):
    """A message and its descriptors. Some are missing if this process had no descriptor free."""

    message: Message
    descriptors: list[int]


class Link:
    """One end of a connection between two processes of a site. ``name`` names the peer in errors.

    `post` never waits: the site, the launcher and the error page use it, because others depend on them.
    `offer` does not wait either, and drops the oldest messages that were offered if the peer does not read.
    `send` waits until the peer has taken the message. Several threads may call both at once, and so may a
    signal handler that interrupts one of them: messages arrive whole.

    Both raise TypeError for a value that JSON does not know, ValueError for a message of more than
    `LARGEST` bytes, and OSError if the peer has ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str = "another process",
        *,
        received: bytes = b"",
        unsent: bytes = b"",
    ) -> None:
        sock.setblocking(False)
        self.name = name
        self._socket = sock
        self._received = bytearray(received)
        self._batches: deque[list[int]] = deque()  # the descriptors of each call that the peer made
        self._unsent = deque([Part(memoryview(unsent), [])] if unsent else [])
        self._outbox = Outbox(lambda: self.name)
        self._lock = threading.RLock()
        self._is_writing = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end, and the descriptors of messages that are not whole yet."""
        for descriptor in [each for batch in self._batches for each in batch]:
            os.close(descriptor)
        self._batches.clear()
        self._forget_unsent()
        self._socket.close()

    def cut_off(self) -> None:
        """End the connection: both sides read its end from now on."""
        self._forget_unsent()
        with contextlib.suppress(OSError):  # the peer has ended
            self._socket.shutdown(socket.SHUT_RDWR)

    # Sending

    @property
    def has_unsent(self) -> bool:
        """True if bytes wait for the peer to read: call `flush` when this end becomes writable."""
        return bool(self._unsent) or bool(self._outbox)

    def post(self, message: Message, descriptors: Iterable[int] = ()) -> None:
        """Send a message without waiting; `flush` sends the bytes that the peer does not take now.

        `BrokenLink` if more than `MOST_UNSENT` bytes would wait.
        """
        parts = split(encode(message, descriptors := list(descriptors)), descriptors)
        waiting = sum(len(part.data) for part in list(self._unsent))
        if waiting and waiting + sum(len(part.data) for part in parts) > MOST_UNSENT:
            self._break(f"does not read its messages, and {waiting:,} bytes wait for it")
        self._unsent.extend(parts)
        self.flush()
        with self._lock:
            for part in parts:
                part.keep()

    def offer(self, messages: Sequence[Offered], lost: Callable[[int], Message]) -> None:
        """Send messages without waiting; while the peer does not read, the oldest are dropped.

        ``lost(number)``: the message by which the peer learns how many were dropped.
        """
        if self.has_unsent or not self._send_now(b"".join(each.data for each in messages)):
            for each in messages:
                self._outbox.put(each, lost)
            self.flush()

    def _send_now(self, data: bytes) -> bool:
        """Send encoded messages if nothing waits before them; return False if the peer takes no byte."""
        with self._lock:
            if self._is_writing or self.has_unsent:
                return False
            self._is_writing = True
            try:
                sent = self._socket.send(data, NO_SIGNAL)
                if sent < len(data):  # before what a signal handler has added meanwhile
                    self._unsent.appendleft(Part(memoryview(data)[sent:], []))
            except BlockingIOError:
                return False
            finally:
                self._is_writing = False
        if self.has_unsent:
            self.flush()
        return True

    def send(self, message: Message, descriptors: Iterable[int] = (), timeout: float | None = None) -> None:
        """Send a message; TimeoutError if the peer has not taken all of it within ``timeout`` seconds."""
        self.post(message, descriptors)
        if not self.finish(timeout):
            self.cut_off()  # the peer has a part of a message, and could not read the next one
            raise TimeoutError(f"{self.name} took no message for {timeout:g} seconds")

    def finish(self, timeout: float | None) -> bool:
        """Wait until the peer has taken everything; return False if the timeout ends first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.flush():
            if not await_event(self, select.POLLOUT, time_left(deadline)):
                return False
        return True

    def flush(self) -> bool:
        """Send the bytes that the peer takes now; return False if more wait until this end is writable."""
        with self._lock:
            # A flush that this one interrupts (in a signal handler) goes on afterwards and sends the rest.
            while not self._is_writing and (unsent := self._next()):
                self._is_writing = True
                try:
                    unsent[0].send(self._socket)
                    if not unsent[0].data:
                        unsent.popleft()
                except BlockingIOError:
                    return False
                except BaseException:  # it is unknown how many bytes the peer has
                    self.cut_off()
                    raise
                finally:
                    self._is_writing = False
        return True

    def _next(self) -> deque[Part]:
        """Return the parts to send; those of the outbox come after all others."""
        if not self._unsent and (data := self._outbox.take()):
            self._unsent.append(Part(memoryview(data), []))
        return self._unsent

    def _forget_unsent(self) -> None:
        # Without the lock: in a forked process, a thread that does not exist there may hold it for ever.
        self._outbox.forget()
        unsent, self._unsent = self._unsent, deque()
        for part in unsent:
            part.close()

    # Receiving

    def receive(self, timeout: float | None = 0) -> list[Received] | None:
        """Return the messages that came; wait for ``timeout`` seconds at most. None at the end.

        A ``timeout`` of None waits for a whole message. `BrokenLink` if the bytes are no message of this
        version, or one of more than `LARGEST` bytes.
        """
        messages = self._receive(timeout)
        while messages == [] and timeout is None:  # only a part of a message came
            messages = self._receive(None)
        return messages

    def _receive(self, timeout: float | None) -> list[Received] | None:
        if timeout != 0 and not await_event(self, select.POLLIN, timeout):
            return []
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._socket, READ_SIZE, MOST_DESCRIPTORS)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        if descriptors or flags & socket.MSG_CTRUNC:
            self._batches.append(descriptors)
        for descriptor in descriptors:  # recv_fds does not take MSG_CMSG_CLOEXEC, which would do this
            os.set_inheritable(descriptor, False)
        self._received += data
        return self.received() if data else None

    def received(self) -> list[Received]:
        """Return the messages that are whole already, without reading."""
        found, start, end = [], 0, 0
        while (begin := start + HEADER.size) <= len(self._received):
            version, count, length = HEADER.unpack_from(self._received, start)
            if version != VERSION:
                self._break(f"sent a message of version {version}, and this process knows version {VERSION}")
            if length > LARGEST:
                self._break(f"announced a message of {length:,} bytes; {LARGEST:,} are the most")
            if (end := begin + length) > len(self._received):
                break
            found.append(Received(self._decode(self._received[begin:end]), self._take(count)))
            start = end
        del self._received[:start]
        return found

    def _decode(self, text: bytearray) -> Message:
        try:
            message: Message = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._break(f"sent a message that is no JSON ({error})")
        return message

    def _take(self, count: int) -> list[int]:
        batches = [self._batches.popleft() for _ in range(0, count, MOST_DESCRIPTORS) if self._batches]
        return [descriptor for batch in batches for descriptor in batch]

    def _break(self, reason: str) -> NoReturn:
        self.cut_off()
        self._received.clear()
        raise BrokenLink(f"{self.name} {reason}. The connection to it was closed.")

    # Handing over

    def hand_over(self, unanswered: Iterable[Message] = ()) -> tuple[bytes, bytes]:
        """Return the received and the unsent bytes for the next program, which makes a `Link` of them.

        ``unanswered``: messages that the next program has to receive again.
        """
        again = b"".join(bytes(encode(message, [])) for message in unanswered)
        unsent = b"".join(bytes(part.data) for part in self._unsent)
        return again + self._received, unsent + b"".join(iter(self._outbox.take, b""))


def await_event(source: Any, event: int, timeout: float | None) -> bool:
    """Wait until a descriptor is readable, writable or at its end; return False if the timeout ends first."""
    poll = select.poll()
    poll.register(source, event)
    return bool(poll.poll(None if timeout is None else max(timeout * 1000, 0)))


def time_left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline of `time.monotonic`; None for None."""
    return None if deadline is None else deadline - time.monotonic()
