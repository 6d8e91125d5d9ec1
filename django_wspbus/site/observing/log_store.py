"""The latest log records of a site: its own, those of its processes, and those of ended processes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from operator import attrgetter

from ...children.child import Child
from ...children.children import Children
from ...process.exchange import MOST_RECORDS
from ...process.log_memory import LogRecord, encode, log_memory
from ...process.record import Record
from ...process.ring import ENDS, Ring

OWN_SIZE, ENDED_SIZE = 512 * 1024, 1024 * 1024
"""Bytes of the records of the site process, and of the processes that have ended."""

OUTPUT_SIZE = 512 * 1024
"""Bytes of the output of programs."""


class LogStore:
    """Remembers the log records of the site.

    ``before``: the records that the program before a restart has handed over.
    """

    def __init__(self, children: Children, before: Iterable[str] = ()) -> None:
        self._children = children
        self._own = _ring(OWN_SIZE)
        self._ended = _ring(ENDED_SIZE)
        self._turn = threading.Lock()  # of the writer of those that have ended
        self._output: Ring | None = None
        self._last = 0
        for entry in before:
            self._ended.write(entry.encode(errors="replace"))
        children.record_readers.append(self._keep_those_of)

    def begin(self) -> None:
        """Remember the records of this process from now on."""
        log_memory.keep(self._own.write)

    def end(self) -> None:
        log_memory.stop()

    def _keep_those_of(self, child: Child, pid: int, record: Record) -> None:
        entries, _ = record.ring.read()
        with self._turn:
            for entry in entries:
                self._ended.write(entry)

    def note(self, pid: int, name: str, text: str) -> None:
        """Remember a line of the output of a program. One thread calls this."""
        if self._output is None:
            self._output = _ring(OUTPUT_SIZE)
        self._last = max(self._last + 1, time.monotonic_ns())
        self._output.write(encode(self._last, time.time(), pid, "INFO", name, text))

    def hand_over(self) -> list[str]:
        """Return the records for the next program; those of processes that go on stay with these."""
        outputs = [] if self._output is None else [self._output]
        entries = [entry for ring in (self._ended, self._own, *outputs) for entry in ring.read()[0]]
        return [entry.decode(errors="replace") for entry in entries]

    def rings(self) -> list[Ring]:
        """Return all rings. The last one has the records of a process that ends while the others are read."""
        records = [record for child in self._children.every() for record in list(child.records.values())]
        outputs = [] if self._output is None else [self._output]
        return [*(record.ring for record in records), *outputs, self._own, self._ended]


class Reader:
    """Reads the records that have been made since it read last."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._positions: dict[int, tuple[Ring, int]] = {}
        self._seen: dict[int, int] = {}

    def read(self, most: int = MOST_RECORDS) -> list[LogRecord]:
        """Return the new records in order, at most so many of each process."""
        found: dict[tuple[int, int], LogRecord] = {}  # those of a process that has just ended come twice
        positions = {}
        for ring in self._store.rings():
            with contextlib.suppress(ValueError):  # its process has just ended
                entries, end = ring.read(self._positions.get(id(ring), (ring, 0))[1])
                positions[id(ring)] = ring, end
                found |= {(each.pid, each.moment): each for each in _decode(entries[-most:])}
        self._positions = positions
        new = sorted((each for each in found.values() if self._is_new(each)), key=attrgetter("moment"))
        for record in new:
            self._seen[record.pid] = max(record.moment, self._seen.get(record.pid, 0))
        return new

    def _is_new(self, record: LogRecord) -> bool:
        """Return whether a record is new: those of a process that has ended are in another ring as well."""
        return record.moment > self._seen.get(record.pid, 0)


def _ring(size: int) -> Ring:
    return Ring(memoryview(bytearray(size + ENDS.size)))


def _decode(entries: Iterable[bytes]) -> Iterator[LogRecord]:
    for entry in entries:
        with contextlib.suppress(ValueError):
            yield LogRecord.decode(entry)
