"""The latest log records of a process, kept in memory: no file, and no handler of LOGGING, is needed.

A factory of log records (`logging.setLogRecordFactory`) sees the records of all loggers: also of loggers that
do not propagate, and after LOGGING has been applied once more. The level of the logger decides, and not the
handlers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

LONGEST_TEXT = 16 * 1024
"""Bytes of the text of a record, with its traceback."""

LONGEST_NAME = 200
"""Characters of the name of a logger."""

CUT = b" [...]"

END = "\0"
"""The end of a field in the bytes of a record."""

NAME = "django_wspbus"

Write = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A log record as the site shows it."""

    moment: int
    """Nanoseconds of `time.monotonic`, which order the records of all processes; no two of one are equal."""
    time: float
    """Seconds since the epoch."""
    pid: int
    level: str
    logger: str
    text: str
    """The message, and the traceback if there is one."""

    @classmethod
    def decode(cls, entry: bytes) -> LogRecord:
        """Return the record in the bytes of `encode`; ValueError if they hold none."""
        moment, time, pid, level, logger, text = entry.decode(errors="replace").split(END, 5)
        return cls(int(moment), float(time), int(pid), level, logger, text)

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        del values["moment"]
        return values


def encode(moment: int, time: float, pid: int, level: str, logger: str, text: str) -> bytes:
    """Return the fields of a `LogRecord` as bytes, with the text cut to `LONGEST_TEXT`."""
    head = f"{moment}{END}{time!r}{END}{pid}{END}{level}{END}{logger[:LONGEST_NAME]}{END}"
    data = text[: LONGEST_TEXT + 1].encode(errors="replace")
    if len(data) > LONGEST_TEXT:
        data = data[:LONGEST_TEXT] + CUT
    return head.encode(errors="replace") + data


class LogMemory:
    """Keeps the log records of this process: hands each, as bytes, to the function of `keep`.

    A forked process keeps none until `keep` is called there. No method raises because of a record.
    """

    def __init__(self) -> None:
        self._write: Write | None = None
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._last = 0
        self._turn = threading.Lock()
        self._formatter = logging.Formatter()
        self._factory: Callable[..., logging.LogRecord] | None = None
        self._pid = 0

    def keep(self, write: Write) -> None:
        """Call ``write(entry)`` with each record from now on, in one thread at a time."""
        self._forget()
        if self._factory is None:
            self._factory = logging.getLogRecordFactory()
            logging.setLogRecordFactory(self._make)
            os.register_at_fork(after_in_child=self._forget)
        self._pid = os.getpid()
        self._write = write

    def stop(self) -> None:
        """Keep no more records."""
        self._write = None

    def _forget(self) -> None:
        # A thread of the parent may hold the lock, and the memory belongs to the parent.
        self._write = None
        self._waiting = deque()
        self._turn = threading.Lock()

    def _make(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        assert self._factory is not None
        record = self._factory(*args, **kwargs)
        if self._write is not None and record.name is not None:  # logging.makeLogRecord() gives no name
            with contextlib.suppress(Exception):  # arguments that do not fit: `logging` says so itself
                self._note(record.created, record.levelname, record.name, self._text_of(record))
        return record

    def _text_of(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text = f"{text}\n{self._formatter.formatException(record.exc_info)}"
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
        return text

    def note_message(self, message: str, level: int = logging.INFO) -> None:
        """Keep a message of the bus, unless its logger makes a record of it."""
        if self._write is not None and not logging.getLogger(NAME).isEnabledFor(level):
            with contextlib.suppress(Exception):
                self._note(time.time(), logging.getLevelName(level), NAME, str(message))

    def _note(self, *noted: Any) -> None:
        self._waiting.append(noted)
        # Nothing waits here: a thread that has the turn, or that this signal handler interrupts, writes it.
        while self._waiting and self._turn.acquire(blocking=False):
            try:
                while self._waiting:
                    self._write_one(*self._waiting.popleft())
            finally:
                self._turn.release()

    def _write_one(self, created: float, level: str, logger: str, text: str) -> None:
        self._last = max(self._last + 1, time.monotonic_ns())
        if self._write is not None:
            self._write(encode(self._last, created, self._pid, level, logger, text))


log_memory = LogMemory()
"""That of this process."""
