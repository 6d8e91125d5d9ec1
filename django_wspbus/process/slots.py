"""The requests in flight of a process, in memory that the site reads at any time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SLOT_SIZE = 256
LONGEST_NAME = 200
"""Bytes of a request's name, "METHOD /path"."""

# The native format copies each number at once, so that a reader never sees a part of one.
SLOT = struct.Struct("@QQdddQH")
"""serial, thread, started, progressed, busy_since, answered, length of the name."""

NAME = SLOT.size
WHOLE = struct.Struct(f"@QQdddQH{LONGEST_NAME}s")
"""A slot with the name."""

STARTED_AT, PROGRESSED_AT = 16, 24
END = struct.Struct("@dddQ")
"""The part of a slot from the start on that the end of a request changes."""

PROGRESSED = struct.Struct("@d")
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


class Written:
    """The numbers of a slot that its writer needs again, as reading them from the memory takes longer."""

    __slots__ = ("answered", "busy_since", "ended", "serial")

    def __init__(self) -> None:
        self.serial = self.answered = 0
        self.busy_since = self.ended = 0.0


class Slots:
    """The slots of a process. A slot has one writer at a time, all in one process; any process may read.

    A reader that meets a writer in the middle of its work reads the slot again.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.count = len(memory) // SLOT_SIZE
        self._written = [Written() for _ in range(self.count)]

    def release(self) -> None:
        self._memory.release()

    # Writing

    def begin(self, slot: int, thread: int, name: bytes, now: float) -> None:
        """Record that a request has begun."""
        written = self._written[slot]
        written.serial = serial = written.serial + 1
        if now - written.ended > BACK_TO_BACK:
            written.busy_since = now
        length = min(LONGEST_NAME, len(name))
        busy_since, answered = written.busy_since, written.answered
        WHOLE.pack_into(
            self._memory, slot * SLOT_SIZE, serial, thread, now, now, busy_since, answered, length, name
        )

    def progress(self, slot: int, now: float) -> None:
        """Record that the request has made progress."""
        PROGRESSED.pack_into(self._memory, slot * SLOT_SIZE + PROGRESSED_AT, now)

    def end(self, slot: int, now: float) -> None:
        """Record that the request has been answered."""
        written = self._written[slot]
        written.ended = now
        written.answered = answered = written.answered + 1
        # A start of 0 says that the slot is free; its last progress is then the end of its last request.
        END.pack_into(self._memory, slot * SLOT_SIZE + STARTED_AT, 0.0, now, written.busy_since, answered)

    # Reading

    def in_flight(self) -> Iterator[InFlight]:
        """Yield the requests in flight."""
        for slot in range(self.count):
            offset = slot * SLOT_SIZE
            data = bytes(self._memory[offset : offset + SLOT_SIZE])
            while data != (again := bytes(self._memory[offset : offset + SLOT_SIZE])):
                data = again
            serial, thread, started, progressed, busy_since, _, length = SLOT.unpack_from(data)
            if started:
                name = data[NAME : NAME + min(length, LONGEST_NAME)].decode(errors="replace")
                yield InFlight(serial, slot, thread, started, progressed, busy_since, name)

    @property
    def answered(self) -> int:
        """The number of requests that have been answered."""
        return sum(SLOT.unpack_from(self._memory, slot * SLOT_SIZE)[5] for slot in range(self.count))

    def busy_threads(self, now: float) -> list[float]:
        """Return the times since which the slots have been busy that are busy, or were a moment ago."""
        found = []
        for slot in range(self.count):
            _, _, started, ended, busy_since, _, _ = SLOT.unpack_from(self._memory, slot * SLOT_SIZE)
            if started or now - ended <= BACK_TO_BACK:
                found.append(busy_since)
        return found
