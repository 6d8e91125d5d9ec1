"""Log files that rotation has moved: reopened by their names, without a loss."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.system.log_files import file_handlers, reopen, reopen_handler


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.log_files")
    logger.setLevel("INFO")
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def rotate(path: Path) -> Path:
    return path.rename(path.with_suffix(".log.1"))


HANDLERS: dict[str, Any] = {
    "append": logging.FileHandler,
    "write": lambda path: logging.FileHandler(path, mode="w"),
    "watched": lambda path: logging.handlers.WatchedFileHandler(path, mode="w"),
    "rotating": lambda path: logging.handlers.RotatingFileHandler(path, maxBytes=100_000),
    "timed": logging.handlers.TimedRotatingFileHandler,
    "delay": lambda path: logging.FileHandler(path, delay=True),
}


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_writes_to_the_file_that_has_its_name(
    logger: logging.Logger, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "site.log"
    logger.addHandler(HANDLERS[kind](path))
    logger.info("before")
    old = rotate(path)
    result = reopen({})
    logger.info("after")

    assert str(path) in result.files
    assert result.failures == []
    assert (old.read_text(), path.read_text()) == ("before\n", "after\n")


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_file_that_was_not_moved_is_not_truncated(
    logger: logging.Logger, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "site.log"
    logger.addHandler(HANDLERS[kind](path))
    logger.info("before")
    for _ in range(2):
        reopen({})
    logger.info("after")

    assert path.read_text() == "before\nafter\n"


def test_a_handler_without_a_file_yet_opens_none(logger: logging.Logger, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "site.log", delay=True)
    assert not reopen_handler(handler)
    assert list(tmp_path.iterdir()) == []
    handler.close()


def test_a_pipe_is_left_alone(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    logger.addHandler(handler := logging.FileHandler(path))
    os.close(reader)
    assert not reopen_handler(handler)  # to open it again would wait for a reader


def test_a_file_that_cannot_be_opened_is_named_and_the_old_one_is_used(
    logger: logging.Logger, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "site.log"
    logger.addHandler(logging.FileHandler(path))
    folder.rename(moved := tmp_path / "moved")
    result = reopen({})
    logger.info("after")

    assert result.failures == [f"{path} (No such file or directory)"]
    assert str(path) not in result.files
    assert (moved / "site.log").read_text() == "after\n"


def test_a_handler_that_raises_anything_does_not_keep_the_others_from_their_files(
    logger: logging.Logger, tmp_path: Path
) -> None:
    class Strange(logging.FileHandler):
        opened = 0

        def _open(self) -> Any:
            self.opened += 1
            if self.opened > 1:
                raise KeyError("strange")
            return super()._open()

    logger.addHandler(Strange(tmp_path / "strange.log"))
    logger.addHandler(logging.FileHandler(tmp_path / "site.log"))
    result = reopen({})

    assert result.failures == [f"{tmp_path / 'strange.log'} (KeyError: 'strange')"]
    assert str(tmp_path / "site.log") in result.files


def test_the_root_logger_and_handlers_behind_others_are_found(tmp_path: Path) -> None:
    behind = [logging.FileHandler(tmp_path / f"{name}.log", delay=True) for name in ("memory", "queue")]
    root = logging.FileHandler(tmp_path / "root.log", delay=True)
    memory = logging.handlers.MemoryHandler(10, target=behind[0])
    sender = logging.handlers.QueueHandler(queue.Queue())
    sender.listener = logging.handlers.QueueListener(sender.queue, behind[1])
    logging.root.addHandler(root)
    logging.root.addHandler(memory)
    logging.root.addHandler(sender)
    known, logging._handlerList[:] = logging._handlerList[:], []  # as after another configuration
    try:
        assert {id(each) for each in (root, *behind)} <= {id(each) for each in file_handlers()}
    finally:
        logging._handlerList[:] = known
        for handler in (root, memory, sender):
            logging.root.removeHandler(handler)
            handler.close()


def test_the_handlers_of_a_queue_listener_of_the_project_are_found(tmp_path: Path) -> None:
    behind = logging.FileHandler(tmp_path / "queue.log", delay=True)
    listener = logging.handlers.QueueListener(queue.Queue(), behind)
    assert behind in file_handlers()
    assert listener.handlers == (behind,)


def test_no_record_is_lost_while_threads_write(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "site.log"
    logger.addHandler(logging.FileHandler(path, mode="w"))
    enough = threading.Event()
    counts = []

    def write() -> None:
        count = 0
        while not enough.is_set():
            logger.info("a record")
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(100):
        path.rename(tmp_path / f"site.log.{number}")
        assert str(path) in reopen({}).files
    enough.set()
    for thread in threads:
        thread.join()

    lines = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert sum(counts) > 100
    assert lines == ["a record"] * sum(counts)


def test_a_descriptor_writes_to_the_file_that_has_the_path(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"before\n")
    old = rotate(path)
    result = reopen({descriptor: path, 99: None})
    os.write(descriptor, b"after\n")
    os.close(descriptor)

    assert str(path) in result.files
    assert (old.read_text(), path.read_text()) == ("before\n", "after\n")
