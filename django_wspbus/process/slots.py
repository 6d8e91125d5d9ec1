"""The requests in flight of a process, in memory that the site reads at any time."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

SLOT_SIZE = 256
LONGEST_NAME = 200
"""Bytes of a request's name, "METHOD /path"."""

# The native format copies each number at once, so that a reader never sees a part of one.
SLOT = struct.Struct(f"@{LONGEST_NAME}sQdddd")
"""name, thread, busy_since, turned, progressed, answered.

``turned`` is the time at which the request in flight began, or minus that at which the last one ended. It is
written last: as long as only a part of a new request has been written, the slot counts as free.
"""

BEGIN = struct.Struct(f"@{LONGEST_NAME}sQdd")
"""The part of a slot that the begin of a request changes."""

NUMBER = 8
TURNED, PROGRESSED, ANSWERED = (BEGIN.size // NUMBER + each for each in (-1, 0, 1))
"""The places of these numbers in a slot, in numbers."""

BACK_TO_BACK = 0.05
"""Seconds between two requests of a thread within which it counts as busy all the time."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A request in flight. Times are those of `time.monotonic`."""

    serial: int
    """Its number among the requests of its slot."""
    slot: int
    thread: int
    """The identifier of its thread, as `threading.get_ident` and faulthandler have it."""
    started: float
    progressed: float
    """The time of the last progress: a chunk that the application yielded, or bytes that the client took."""
    busy_since: float
    """The time since which the slot has been busy without a pause of more than `BACK_TO_BACK`."""
    name: str
    """"METHOD /path", without the query string."""


class Slot:
    """A slot, for the process that writes it: one request at a time.

    It remembers the values that it has written, as reading them from the memory takes longer, and writes the
    name and the thread only if they are not those of the last request.
    """

    __slots__ = (
        "_answered",
        "_busy_since",
        "_ended",
        "_name",
        "_numbers",
        "_place",
        "_thread",
        "_write",
        "environ",
        "number",
    )

    def __init__(self, number: int, memory: memoryview, numbers: memoryview[float]) -> None:
        self.number = number
        self.environ: dict[str, Any] | None = None
        """The environ of the request in flight, if its writer sets it."""
        self._numbers = numbers
        self._place = number * SLOT_SIZE // NUMBER
        self._write = partial(BEGIN.pack_into, memory, number * SLOT_SIZE)
        self._name: str | None = None
        self._thread = self._answered = 0
        self._busy_since = self._ended = 0.0

    def begin(self, thread: int, name: str, now: float) -> None:
        """Record that a request has begun. ``name``: a string of bytes, as in WSGI."""
        if now - self._ended > BACK_TO_BACK:
            self._busy_since = now
        elif name == self._name and thread == self._thread:
            self._numbers[self._place + TURNED] = now
            return
        self._name, self._thread = name, thread
        self._write(name.encode("latin-1", "replace"), thread, self._busy_since, now)

    def progress(self, now: float) -> None:
        """Record that the request has made progress."""
        self._numbers[self._place + PROGRESSED] = now

    def follow(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks of a response, and record each as progress."""
        numbers, place, now = self._numbers, self._place + PROGRESSED, time.monotonic
        for chunk in chunks:
            numbers[place] = now()
            yield chunk

    def end(self, now: float) -> None:
        """Record that the request has been answered."""
        self._ended = now
        self._answered = answered = self._answered + 1
        numbers, place = self._numbers, self._place
        numbers[place + TURNED] = -now
        numbers[place + ANSWERED] = answered


class Slots:
    """The slots of a process. One process writes them; any process may read.

    A reader that meets a writer in the middle of its work reads the slot again.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._numbers: memoryview[float] | None = None
        self.count = len(memory) // SLOT_SIZE

    @cached_property
    def writers(self) -> list[Slot]:
        """The slots, for the process that writes them."""
        self._numbers = numbers = self._memory.cast("d")
        return [Slot(number, self._memory, numbers) for number in range(self.count)]

    def release(self) -> None:
        if self._numbers is not None:
            self._numbers.release()
        self._memory.release()

    def in_flight(self) -> Iterator[InFlight]:
        """Yield the requests in flight."""
        for slot in range(self.count):
            offset = slot * SLOT_SIZE
            data = bytes(self._memory[offset : offset + SLOT_SIZE])
            while data != (again := bytes(self._memory[offset : offset + SLOT_SIZE])):
                data = again
            name, thread, busy_since, turned, progressed, answered = SLOT.unpack_from(data)
            if turned > 0:
                text = printable(name.rstrip(b"\0").decode(errors="replace"))[:LONGEST_NAME]
                progressed = max(turned, progressed)
                yield InFlight(int(answered) + 1, slot, thread, turned, progressed, busy_since, text)

    @property
    def answered(self) -> int:
        """The number of requests that have been answered."""
        return sum(int(SLOT.unpack_from(self._memory, slot * SLOT_SIZE)[5]) for slot in range(self.count))

    def busy_threads(self, now: float) -> list[float]:
        """Return the times since which the slots have been busy that are busy, or were a moment ago."""
        found = []
        for slot in range(self.count):
            _, _, busy_since, turned, _, _ = SLOT.unpack_from(self._memory, slot * SLOT_SIZE)
            if turned > 0 or now + turned <= BACK_TO_BACK:
                found.append(busy_since)
        return found


def printable(name: str) -> str:
    """Return a name without line breaks and control characters, which would forge a line of the log."""
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)
