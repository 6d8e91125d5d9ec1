"""The output of programs: their lines go to the standard output of the site, and to its log memory."""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterable

from ...system.waker import Waker

READ_SIZE = 64 * 1024

WRITE_SIZE = 4096
"""Bytes that a pipe takes at once if it is writable (PIPE_BUF)."""

LONGEST_LINE = 16 * 1024
"""Bytes of a line; the rest counts as another one."""

TIME_FOR_LAST_LINES = 1.0
"""Seconds for the last lines, if the standard output takes none."""

TIME_TO_END = 1.0
"""Seconds more for a thread that hangs in a write: another process may have filled the pipe."""

COLOURS = (36, 33, 32, 35, 34, 31)
"""Of ANSI: cyan, yellow, green, magenta, blue, red."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Source:
    """The output of one program. ``descriptor``: the end of a pipe, which this object owns."""

    def __init__(self, name: str, descriptor: int, pid: int, kept: bytes = b"") -> None:
        os.set_blocking(descriptor, False)
        self.name = name
        self.descriptor = descriptor
        self.pid = pid
        self.buffer = kept
        """The beginning of a line."""
        self.is_noted: Callable[[], bool] = lambda: True
        """Returns True if its lines go to the log memory."""
        self.has_ended = False
        self.wake: Callable[[], None] = lambda: None

    def end(self) -> None:
        """Read no more than what is there, as the program has ended."""
        self.has_ended = True
        self.wake()

    def read(self) -> tuple[list[bytes], bool]:
        """Return the lines that have come, and whether more may come."""
        try:
            data = os.read(self.descriptor, READ_SIZE)
        except BlockingIOError:
            data = b""
            is_open = not self.has_ended
        else:
            is_open = bool(data)
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        if self.buffer and (not is_open or len(self.buffer) > LONGEST_LINE):
            lines.append(self.buffer)
            self.buffer = b""
        return lines, is_open


class Output:
    """A thread that shows the lines of programs. In a terminal each has the name of its program, in a colour.

    ``names``: those of all programs; ``note(pid, name, text)`` adds a line to the log memory. While the
    standard output takes no more, the programs wait, and the site does not.
    """

    def __init__(
        self, names: Iterable[str], note: Callable[[int, str, str], None], descriptor: int = 1
    ) -> None:
        self._names = list(names)
        self._note = note
        self._descriptor = descriptor
        self._sources: list[Source] = []
        self._pending = b""
        self._lock = threading.Lock()
        self._waker: Waker | None = None
        self._thread: threading.Thread | None = None
        self._deadline: float | None = None
        """The time of `time.monotonic` at which the thread ends, if not before; None: it goes on."""

    def show(self, source: Source) -> None:
        with self._lock:
            self._sources.append(source)
            if source.name not in self._names:  # of an entry that a restart has removed
                self._names.append(source.name)
        if self._waker is None:
            self._waker = Waker()
        source.wake = self._waker.wake
        self.resume()

    def resume(self) -> None:
        """Start the thread, unless it runs or there is nothing to show."""
        self._deadline = None
        if self._waker is not None and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="Output of programs", daemon=True)
            self._thread.start()
        if self._waker is not None:
            self._waker.wake()

    def pause(self) -> None:
        """End the thread once the lines that it has read are written, or time is up."""
        if self._thread is not None and self._waker is not None:
            self._deadline = time.monotonic() + TIME_FOR_LAST_LINES
            self._waker.wake()
            self._thread.join(TIME_FOR_LAST_LINES + TIME_TO_END)

    def close(self) -> None:
        """Show the last lines of programs that have ended, and release all resources."""
        self.pause()
        if self._thread is not None and self._thread.is_alive():  # its descriptors must stay
            return
        if self._waker is not None:
            self._waker.close()
            self._waker = None
        for source in self._sources:
            os.close(source.descriptor)
        self._sources.clear()

    # In the thread

    def _run(self) -> None:
        assert self._waker is not None
        while not self._is_over():
            poll = select.poll()
            poll.register(self._waker, select.POLLIN)
            with self._lock:
                sources = {source.descriptor: source for source in self._sources}
            if self._pending:
                poll.register(self._descriptor, select.POLLOUT)
            else:
                for descriptor in sources:
                    poll.register(descriptor, select.POLLIN)
            left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0) * 1000
            if not self._pending and any(source.has_ended for source in sources.values()):
                left = 0  # there may be more to read, and no event for its end
            for descriptor, _ in poll.poll(left):
                if descriptor == self._waker.fileno():
                    self._waker.clear()
                elif descriptor == self._descriptor and self._pending:
                    self._write()
                else:
                    self._read(sources[descriptor])
            for source in [each for each in sources.values() if each.has_ended and not self._pending]:
                self._read(source)

    def _is_over(self) -> bool:
        if self._deadline is None:
            return False
        return not self._pending or time.monotonic() >= self._deadline

    def _read(self, source: Source) -> None:
        if source not in self._sources:
            return
        lines, is_open = source.read()
        prefix = self._prefix(source)
        self._pending += b"".join(prefix + line + b"\n" for line in lines)
        for line in lines:
            if source.is_noted():
                self._note(source.pid, source.name, _CONTROL.sub("", line.decode(errors="replace")))
        if not is_open:
            with self._lock:
                self._sources.remove(source)
            os.close(source.descriptor)

    def _prefix(self, source: Source) -> bytes:
        if not os.isatty(self._descriptor):
            return b""
        text = f"{source.name:{max(map(len, self._names))}} |"
        if "NO_COLOR" not in os.environ and os.environ.get("DJANGO_COLORS") != "nocolor":
            colour = COLOURS[self._names.index(source.name) % len(COLOURS)]
            text = f"\x1b[{colour}m{text}\x1b[0m"
        return f"{text} ".encode()

    def _write(self) -> None:
        try:
            written = os.write(self._descriptor, self._pending[:WRITE_SIZE])
        except BlockingIOError:
            return
        except OSError:  # a closed terminal must not stop the programs
            self._pending = b""
            return
        self._pending = self._pending[written:]
