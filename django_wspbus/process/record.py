"""The record of a process: memory that a process of a child shares with the site.

The site can read it at any time: while C code holds the GIL of that process, while the process is stopped,
and after it was killed. It has four parts, in this order:

- the fields of `Fields`;
- slots, one for each request in flight: see `slots`;
- a ring of log records: see `ring`;
- a region, from `Record.dump_begins` to the end of the file, for the stacks that faulthandler writes.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType
from typing import Any

from .dump import LONGEST_DUMP, decoded, write_on_signals
from .ring import Ring
from .slots import SLOT_SIZE, Slots

FIELDS_SIZE = 256
RING_SIZE = 256 * 1024
"""Bytes of the log records of one process."""


class Stage(IntEnum):
    """The stages of a worker, in this order; one that stands by has not begun to boot."""

    BOOTING = 0
    STANDBY = 1
    READY = 2
    """It has booted, and waits to be released."""
    SERVING = 3
    PROVEN = 4
    """It has answered a request."""


@dataclass(frozen=True, slots=True)
class Field:
    """A number in the memory of a record, in the format of `struct` at an offset."""

    format: str
    offset: int

    def __get__(self, record: Record | None, owner: type[Record]) -> Any:
        if record is None:
            return self
        return struct.unpack_from(self.format, record.memory, self.offset)[0]

    def __set__(self, record: Record, value: Any) -> None:
        struct.pack_into(self.format, record.memory, self.offset, value)


class Record:
    """The record of one process. ``descriptor``: that of its file, which this object owns.

    The process that it describes writes it; the site writes only ``retiring`` and ``wanted``.
    """

    slots_count: Any = Field("@I", 0)
    pid: Any = Field("@I", 4)
    born: Any = Field("@d", 8)
    """The time of `time.monotonic` at which it was made."""
    stage: Any = Field("@B", 16)
    """The `Stage` of a worker."""
    retiring: Any = Field("@B", 17)
    """1 once the site has decided that another worker replaces this one."""
    dumps_stacks: Any = Field("@B", 18)
    """1 once the process handles the signals of `dump`, which would end it before."""
    wanted: Any = Field("@I", 20)
    """In the record of a master: the number of workers that the site wants; 0: that of its settings."""
    threads: Any = Field("@I", 24)
    """The number of threads that answer requests; 0 if it is not known."""
    connections: Any = Field("@i", 28)
    """The number of open connections of clients; -1 if it is not known."""
    beat: Any = Field("@d", 32)
    """The time of `time.monotonic` of the last turn of a worker's main loop; 0 if it is not known."""
    unrecorded: Any = Field("@I", 40)
    """The number of requests in flight without a slot, because all slots were taken."""
    served_from: Any = Field("@d", 48)
    """The time of `time.monotonic` from which a worker has answered requests; 0 before."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.is_closed = False
        self._lock = threading.Lock()
        self.memory = mmap.mmap(descriptor, 0)
        self.slots = Slots(memoryview(self.memory)[FIELDS_SIZE : FIELDS_SIZE + self.slots_count * SLOT_SIZE])
        begin = FIELDS_SIZE + self.slots_count * SLOT_SIZE
        self.ring = Ring(memoryview(self.memory)[begin : begin + RING_SIZE])
        self.dump_begins: int = begin + RING_SIZE

    @classmethod
    def make(cls, slots: int) -> Record:
        """Make a record with room for a number of requests in flight."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("django-wspbus-record")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(descriptor, FIELDS_SIZE + slots * SLOT_SIZE + RING_SIZE)
            os.pwrite(descriptor, struct.pack("@I", slots), 0)
            record = cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        record.born = time.monotonic()
        record.connections = -1
        return record

    def close(self) -> None:
        """Release the memory; from now on each read raises ValueError."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            for release in (self.slots.release, self.ring.release, self.memory.close):
                with contextlib.suppress(BufferError):  # another thread reads, and frees it when it is done
                    release()
            os.close(self.descriptor)

    def write_stacks_on_signal(
        self, more: Callable[[FrameType | None], str] | None = None, *, interrupts: bool = False
    ) -> None:
        """In the process that it describes: write the stacks of all threads at a signal: see `dump`."""
        # Without the lock, as the signal may come while its handler runs.
        if write_on_signals(self.descriptor, self._dump_length, more, interrupts=interrupts):
            self.dumps_stacks = 1

    # Stacks: faulthandler writes at the offset of the file, which all processes that hold it share

    def begin_dump(self) -> None:
        """Discard the last stacks; faulthandler writes the next ones at the beginning of the region."""
        with self._open():
            os.ftruncate(self.descriptor, self.dump_begins)
            os.lseek(self.descriptor, 0, os.SEEK_END)

    def dump_length(self) -> int:
        """Return the number of bytes that faulthandler has written so far."""
        with self._open():
            return self._dump_length()

    def _dump_length(self) -> int:
        return os.fstat(self.descriptor).st_size - self.dump_begins

    def read_dump(self) -> str:
        """Return the stacks that faulthandler has written so far."""
        with self._open():
            return decoded(os.pread(self.descriptor, LONGEST_DUMP, self.dump_begins))

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Keep the descriptor open, whose number may be that of another file once it is closed."""
        with self._lock:
            if self.is_closed:
                raise ValueError("The record has been closed, because its process has ended.")
            yield
