"""The output of programs: who wrote each line, in a terminal and in the log memory."""

from __future__ import annotations

import os
import pty
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from django_wspbus.children.programs.output import LONGEST_LINE, Output, Source

from ...processes import DEADLINE


class Shown:
    """An `Output` that writes to a pipe or a terminal, and what it has noted."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self.noted: list[tuple[int, str, str]] = []
        self.changed = threading.Condition()
        self.output = Output(["tasks", "celery.2"], self.note, writer)

    def note(self, pid: int, name: str, text: str) -> None:
        with self.changed:
            self.noted.append((pid, name, text))
            self.changed.notify_all()

    def program(self, name: str, pid: int = 7) -> tuple[Source, int]:
        """Show a program; return its output, and the descriptor that it writes to."""
        reader, writer = os.pipe()
        source = Source(name, reader, pid)
        self.output.show(source)
        return source, writer

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += os.read(self.reader, size - len(found))
        return found

    def await_noted(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.noted) >= count, DEADLINE)

    def close(self) -> None:
        self.output.close()
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def shown() -> Iterator[Shown]:
    shown = Shown(*os.pipe())
    yield shown
    shown.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("DJANGO_COLORS", raising=False)
    shown = Shown(*pty.openpty())
    yield shown
    shown.close()


def test_without_a_terminal_each_line_stays_as_it_is(shown: Shown) -> None:
    _, writer = shown.program("tasks")
    os.write(writer, b'{"level": "info"}\n\x1b[31mred\x1b[0m\n')
    assert shown.read(31) == b'{"level": "info"}\n\x1b[31mred\x1b[0m\n'
    shown.await_noted(2)
    assert shown.noted == [(7, "tasks", '{"level": "info"}'), (7, "tasks", "red")]
    os.close(writer)


def test_in_a_terminal_each_line_has_the_name_of_its_program_in_a_colour_of_its_own(terminal: Shown) -> None:
    _, tasks = terminal.program("tasks")
    _, celery = terminal.program("celery.2")
    os.write(tasks, b"one\n")
    expected = b"\x1b[36mtasks    |\x1b[0m one\r\n"
    assert terminal.read(len(expected)) == expected
    os.write(celery, b"two\n")
    expected = b"\x1b[33mcelery.2 |\x1b[0m two\r\n"
    assert terminal.read(len(expected)) == expected
    os.close(tasks)
    os.close(celery)


def test_no_color_keeps_the_names(terminal: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    _, writer = terminal.program("tasks")
    os.write(writer, b"one\n")
    assert terminal.read(16) == b"tasks    | one\r\n"
    os.close(writer)


def test_a_program_that_a_restart_has_removed_has_its_name_as_well(terminal: Shown) -> None:
    _, writer = terminal.program("mail")
    os.write(writer, b"bye\n")
    expected = b"\x1b[32mmail     |\x1b[0m bye\r\n"
    assert terminal.read(len(expected)) == expected
    os.close(writer)


def test_lines_of_two_programs_do_not_mix_and_the_last_one_needs_no_end(shown: Shown) -> None:
    _, first = shown.program("tasks", 1)
    _, second = shown.program("celery.2", 2)
    os.write(first, b"half of ")
    os.write(second, b"two\n")
    assert shown.read(4) == b"two\n"
    os.write(first, b"one")
    os.close(first)
    assert shown.read(12) == b"half of one\n"
    shown.await_noted(2)
    assert shown.noted == [(2, "celery.2", "two"), (1, "tasks", "half of one")]
    os.close(second)


def test_a_line_without_an_end_is_cut(shown: Shown) -> None:
    _, writer = shown.program("tasks")
    os.write(writer, b"x" * (LONGEST_LINE + 1))
    assert shown.read(LONGEST_LINE + 2) == b"x" * (LONGEST_LINE + 1) + b"\n"
    os.close(writer)


def test_while_the_output_is_full_the_program_waits_and_nothing_else_does(shown: Shown) -> None:
    _, writer = shown.program("tasks")
    os.set_blocking(writer, False)
    line = b"y" * 1023 + b"\n"
    written, deadline = 0, time.monotonic() + DEADLINE
    is_full_since = None
    while is_full_since is None or time.monotonic() < is_full_since + 0.2:
        assert time.monotonic() < deadline
        try:
            written += os.write(writer, line)
            is_full_since = None
        except BlockingIOError:
            is_full_since = is_full_since or time.monotonic()
            time.sleep(0.01)
    shown.output.pause()  # returns although the pipe is full
    shown.output.resume()
    assert shown.read(written) == line * (written // len(line))
    os.close(writer)


def test_a_closed_output_stops_no_program(shown: Shown) -> None:
    os.close(shown.reader)
    _, writer = shown.program("tasks")
    for number in range(3):
        os.write(writer, b"line\n")
        shown.await_noted(number + 1)
    os.close(writer)
    shown.reader = os.open(os.devnull, os.O_RDONLY)


def test_what_an_ended_program_has_left_open_is_given_up(shown: Shown) -> None:
    for number in range(50):  # as the thread may see the end at once with the words, or later
        source, writer = shown.program("tasks")
        os.write(writer, b"last words %02d" % number)
        source.end()
        assert shown.read(14) == b"last words %02d\n" % number
        os.close(writer)


def test_over_a_restart_the_beginning_of_a_line_is_handed_over(shown: Shown) -> None:
    source, writer = shown.program("tasks")
    os.write(writer, b"one\nha")
    assert shown.read(4) == b"one\n"
    shown.output.pause()
    assert source.buffer == b"ha"
    shown.output.resume()
    os.write(writer, b"lf\n")
    assert shown.read(5) == b"half\n"
    os.close(writer)


class Hanging(Output):
    """An `Output` whose writes wait, as if another process had filled the pipe."""

    def __init__(self, names: list[str], note: Callable[[int, str, str], None], descriptor: int) -> None:
        super().__init__(names, note, descriptor)
        self.begun = threading.Event()
        self.go = threading.Event()

    def _write(self) -> None:
        self.begun.set()
        assert self.go.wait(DEADLINE)
        super()._write()


def test_a_write_that_hangs_keeps_neither_a_restart_nor_the_lines_that_follow(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.children.programs.output.TIME_FOR_LAST_LINES", 0.01)
    monkeypatch.setattr("django_wspbus.children.programs.output.TIME_TO_END", 0.01)
    shown.output = hanging = Hanging(["tasks"], shown.note, shown.writer)
    _, writer = shown.program("tasks")
    os.write(writer, b"one\n")
    assert hanging.begun.wait(DEADLINE)
    hanging.pause()
    hanging.resume()
    hanging.go.set()
    os.write(writer, b"two\n")
    assert shown.read(8) == b"one\ntwo\n"
    os.close(writer)
