from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

import django_wspbus
from django_wspbus.wspbus import Bus, states

DEADLINE = 20
ROOT = Path(django_wspbus.__file__).parent.parent


class Journal:
    """The calls of a bus's listeners by name, in order, and its log lines."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.events: list[str] = []
        self.lines: list[str] = []
        bus.subscribe("log", lambda msg, level: self.lines.append(msg))

    def listen(
        self, channel: str, name: str | None = None, priority: float | None = None, **options: Any
    ) -> None:
        self.bus.subscribe(channel, lambda *args: self.events.append(name or channel), priority, **options)

    def listen_to_all(self) -> None:
        for channel in ("start", "stop", "graceful", "exit"):
            self.listen(channel)


class Stream(threading.Thread):
    """Reads the output of a process, so that a test can wait for a line."""

    def __init__(self, pipe: IO[str]) -> None:
        super().__init__(daemon=True)
        self.pipe = pipe
        self.lines: list[str] = []
        self.changed = threading.Condition()
        self.start()

    def run(self) -> None:
        with self.pipe:
            for line in self.pipe:
                with self.changed:
                    self.lines.append(line.rstrip("\n"))
                    self.changed.notify_all()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def expect(self, text: str, times: int = 1) -> str:
        """Wait for ``count`` lines that contain the text; return the last one."""

        def found() -> list[str]:
            lines = [line for line in self.lines if text in line]
            return lines if len(lines) >= times else []

        with self.changed:
            lines = self.changed.wait_for(found, DEADLINE)
        assert lines, f"No {text!r} {times} times in:\n{self.text}"
        return lines[times - 1]


class Process:
    def __init__(self, arguments: list[str], **options: Any) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        assert self.popen.stdout
        assert self.popen.stderr
        self.out = Stream(self.popen.stdout)
        self.err = Stream(self.popen.stderr)

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def finish(self, status: int = 0) -> list[str]:
        """Wait for the end of the process; return the lines on stdout."""
        try:
            found = self.popen.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            found = None
        if found is not None:
            self.out.join(DEADLINE)
            self.err.join(DEADLINE)
        assert found == status, f"status {found}\n{self.out.text}\n{self.err.text}"
        return self.out.lines

    def kill(self) -> None:
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()
        self.out.join(DEADLINE)
        self.err.join(DEADLINE)


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    yield bus
    for channel in bus.listeners:
        bus.listeners[channel] = set()
    if bus.state is not states.EXITING:
        bus.exit()


@pytest.fixture
def journal(bus: Bus) -> Journal:
    return Journal(bus)


@pytest.fixture
def in_thread() -> Iterator[Callable[..., threading.Thread]]:
    """Start functions in threads. The test fails if one raises, or has not ended with the test."""
    threads = []
    errors = []

    def start(function: Callable[..., Any], *args: Any) -> threading.Thread:
        def run() -> None:
            try:
                function(*args)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive(), f"{thread} hangs"
    if errors:
        raise errors[0]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a script, or an interpreter with arguments, in a new process."""
    processes = []

    def start(source: str | None = None, *arguments: str, **options: Any) -> Process:
        options.setdefault("env", os.environ | {"PYTHONPATH": str(ROOT)})
        flags = list(options.pop("flags", ["-W", "error"]))
        if source is not None:
            script = tmp_path / "script.py"
            script.write_text(source)
            flags.append(str(script))
        process = Process([*flags, *arguments], **options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
