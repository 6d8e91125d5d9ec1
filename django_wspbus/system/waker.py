"""A socket that becomes readable when another thread, or a signal, wakes a loop."""

from __future__ import annotations

import contextlib
import socket


class Waker:
    """Wakes a loop that waits until this object is readable. No method blocks."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        for sock in (self._reader, self._writer):
            sock.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    @property
    def writer(self) -> int:
        """The descriptor to write to, for `signal.set_wakeup_fd`."""
        return self._writer.fileno()

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full, so that the loop wakes anyway; or closed
            self._writer.send(b"\0")

    def clear(self) -> bytes:
        """Make it unreadable again; return the numbers of the signals that were written to it."""
        return self._reader.recv(4096).replace(b"\0", b"")  # a zero is a call of `wake`

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
