"""A ring of byte strings in memory: new ones overwrite the oldest."""

from __future__ import annotations

import struct

# The native format copies each number at once, so that a reader never sees a part of one.
ENDS = struct.Struct("@QQ")
"""The positions of the oldest whole entry and of the next one, in bytes since the ring was made."""

LENGTH = struct.Struct("=I")


class Ring:
    """Byte strings in a part of memory that one process writes, and others read at any time.

    The writer calls `write` in one thread at a time.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._room = memory[ENDS.size :]
        self.size = len(self._room)

    def release(self) -> None:
        self._room.release()
        self._memory.release()

    def write(self, entry: bytes) -> None:
        """Add an entry; it is cut to a quarter of the ring."""
        entry = LENGTH.pack(len(entry[: self.size // 4])) + entry[: self.size // 4]
        oldest, end = ENDS.unpack_from(self._memory)
        while end + len(entry) - oldest > self.size:
            oldest += LENGTH.size + LENGTH.unpack(self._read(oldest, LENGTH.size))[0]
        ENDS.pack_into(self._memory, 0, oldest, end)  # before its bytes are overwritten
        position = end % self.size
        first = min(len(entry), self.size - position)
        self._room[position : position + first] = entry[:first]
        self._room[: len(entry) - first] = entry[first:]
        ENDS.pack_into(self._memory, 0, oldest, end + len(entry))

    def read(self, after: int = 0) -> tuple[list[bytes], int]:
        """Return the entries from a position on, or from the oldest, and the position of the next one."""
        oldest, end = ENDS.unpack_from(self._memory)
        begin = after if oldest <= after <= end else oldest
        data = self._read(begin, end - begin)
        whole, _ = ENDS.unpack_from(self._memory)  # older ones may have been overwritten meanwhile
        entries, position = [], max(begin, whole)
        while position < end:
            start = position - begin + LENGTH.size
            (length,) = LENGTH.unpack_from(data, position - begin)
            entries.append(data[start : start + length])
            position += LENGTH.size + length
        return entries, end

    def _read(self, position: int, length: int) -> bytes:
        begin = position % self.size
        first = min(length, self.size - begin)
        return bytes(self._room[begin : begin + first]) + bytes(self._room[: length - first])
