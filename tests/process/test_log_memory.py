"""The latest log records of a process, in memory."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from django_wspbus.process.log_memory import CUT, LONGEST_TEXT, LogMemory, LogRecord, encode, log_memory
from django_wspbus.process.process_bus import log_to_python
from django_wspbus.process.record import Record


class Kept:
    """A memory, and the records that it has written."""

    def __init__(self, memory: LogMemory) -> None:
        self.memory = memory
        self.entries: list[bytes] = []
        memory.keep(self.entries.append)

    @property
    def records(self) -> list[LogRecord]:
        return [LogRecord.decode(entry) for entry in self.entries]

    @property
    def texts(self) -> list[str]:
        return [record.text for record in self.records]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """The memory of this process; afterwards the records are made as before."""
    factory = logging.getLogRecordFactory()
    yield Kept(log_memory)
    log_memory.stop()
    log_memory._factory = None
    logging.setLogRecordFactory(factory)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger that no other logger and no handler sees."""
    logger = logging.getLogger("tests.of.log.memory")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.NullHandler())
    yield logger
    logger.handlers.clear()


def test_a_record_has_its_time_process_level_logger_and_text(kept: Kept, logger: logging.Logger) -> None:
    logger.warning("%s of %d", "one", 2)

    (record,) = kept.records
    assert record.as_dict() == {
        "time": record.time,
        "pid": os.getpid(),
        "level": "WARNING",
        "logger": "tests.of.log.memory",
        "text": "one of 2",
    }
    assert record.time > 1_700_000_000


def test_the_level_of_the_logger_decides(kept: Kept, logger: logging.Logger) -> None:
    logger.debug("not this")
    logger.info("but this")

    assert kept.texts == ["but this"]


def test_a_traceback_is_part_of_the_text(kept: Kept, logger: logging.Logger) -> None:
    try:
        raise ValueError("on purpose")
    except ValueError:
        logger.exception("It failed.")

    (text,) = kept.texts
    assert text.startswith("It failed.\nTraceback (most recent call last):")
    assert text.endswith("ValueError: on purpose")


def test_arguments_that_do_not_fit_raise_nothing_here(kept: Kept, logger: logging.Logger) -> None:
    make = logging.getLogRecordFactory()
    assert make("shop", 20, "", 1, "%d", ("no number",), None).args == ("no number",)
    logger.info("%d", 3)

    assert kept.texts == ["3"]


def test_a_message_of_the_bus_is_kept_once_whether_its_logger_is_enabled_or_not(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus_logger = logging.getLogger("django_wspbus")
    for level in (logging.ERROR, logging.INFO):
        monkeypatch.setattr(bus_logger, "level", level)
        bus_logger.manager._clear_cache()  # type: ignore[attr-defined]
        log_to_python("Bus STARTED")
    monkeypatch.undo()
    bus_logger.manager._clear_cache()  # type: ignore[attr-defined]

    assert [(each.level, each.logger, each.text) for each in kept.records] == [
        ("INFO", "django_wspbus", "Bus STARTED")
    ] * 2


@pytest.mark.parametrize(
    "text", ["x" * 10**6, "ä" * 10**5, "\0\n" * 10**5], ids=["ascii", "umlauts", "controls"]
)
def test_a_long_text_is_cut_and_fits_into_the_ring_of_a_record(text: str) -> None:
    record = Record.make(1)
    record.ring.write(encode(1, 2.0, 3, "INFO", "shop" * 1000, text))
    ((entry,), _) = record.ring.read()
    record.close()

    decoded = LogRecord.decode(entry)
    assert len(decoded.text.encode()) <= LONGEST_TEXT + len(CUT) + 3
    assert text.startswith(decoded.text.removesuffix(CUT.decode()).rstrip("\ufffd"))


def test_records_of_many_threads_come_whole_and_each_later_than_the_one_before(
    kept: Kept, logger: logging.Logger
) -> None:
    def log_some(name: str) -> None:
        for number in range(200):
            logger.info("%s %d", name, number)

    threads = [threading.Thread(target=log_some, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(kept.texts) == sorted(f"{name} {number}" for name in "abc" for number in range(200))
    moments = [record.moment for record in kept.records]
    assert moments == sorted(set(moments))


def test_a_record_that_is_made_while_another_is_written_comes_after_it(
    kept: Kept, logger: logging.Logger
) -> None:
    entries: list[bytes] = []

    def write(entry: bytes) -> None:
        if not entries:
            logger.info("from a signal handler")
        entries.append(entry)

    log_memory.keep(write)
    logger.info("first")

    assert [LogRecord.decode(entry).text for entry in entries] == ["first", "from a signal handler"]


def test_a_forked_process_does_not_write_to_the_memory_of_its_parent(
    kept: Kept, logger: logging.Logger
) -> None:
    record = Record.make(1)
    log_memory.keep(record.ring.write)
    pid = os.fork()
    if not pid:
        logger.info("in the child")
        os._exit(0)
    os.waitpid(pid, 0)
    logger.info("in the parent")
    entries, _ = record.ring.read()
    log_memory.stop()
    record.close()

    assert [LogRecord.decode(entry).text for entry in entries] == ["in the parent"]
