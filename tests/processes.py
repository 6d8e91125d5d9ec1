"""Real programs for tests: started, read, stopped, and never left behind.

A program is in a session of its own, so that signals meant for the tests do not reach it, and all that
descends from it carries a mark in its environment, by which it is found even as a daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from .fork_server import Forked, can_fork, fork_server

ROOT = Path(__file__).resolve().parent.parent
MANAGE = str(ROOT / "testproject" / "manage.py")

DEADLINE = 30.0
"""Seconds that anything may take here; far more than it does, as machines may be busy."""

MARK = "TEST_PROGRAM"


def start(
    command: list[str], *, env: Mapping[str, str], cwd: str | Path | None, stdout: int, stderr: int
) -> subprocess.Popen[bytes] | Forked:
    """Start a program in a session of its own, without an input; from the fork server, if `can_fork`."""
    interpreter, *arguments = command
    if interpreter == sys.executable and arguments[0].endswith("manage.py") and can_fork(env):
        return fork_server().start(arguments, env=env, cwd=cwd, stdout=stdout, stderr=stderr)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )


def run(command: list[str], *, env: Mapping[str, str], cwd: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output is text."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = start(command, env=env, cwd=cwd, stdout=stdout.fileno(), stderr=stderr.fileno())
        try:
            status = process.wait(DEADLINE)
        finally:
            process.kill()
            process.wait()
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, status, stdout.read(), stderr.read())


class Running:
    """A program, as a context manager; its output, stdout and stderr in one, is read as it comes.

    It becomes part of the test's own output, for pytest to show when the test fails. A path that ends
    with ``.py`` as the first of ``command`` is run by this interpreter. ``env`` is laid over the environment.
    """

    def __init__(
        self, *command: str, env: Mapping[str, str] | None = None, cwd: str | Path | None = None
    ) -> None:
        self.command = [sys.executable, *command] if command[0].endswith(".py") else list(command)
        self.mark = uuid.uuid4().hex
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {}), MARK: self.mark}
        self.cwd = cwd
        self.lines: list[str] = []
        self._shown = 0
        self._changed = threading.Condition()
        self._at_end = False

    def __enter__(self) -> Self:
        reader, writer = os.pipe()
        try:
            self.process = start(self.command, env=self.env, cwd=self.cwd, stdout=writer, stderr=writer)
        finally:
            os.close(writer)
        self._output = open(reader, errors="replace")
        self._reader = threading.Thread(target=self._read, name=f"Output of {self.command}", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    # What it says

    def _read(self) -> None:
        with self._output as output:
            for line in output:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._at_end = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return "\n".join(self.lines)

    def show(self) -> None:
        """Write what is new to the test's own output; from a thread it would land between the tests."""
        new = self.lines[self._shown :]
        self._shown += len(new)
        sys.stdout.writelines(f"{line}\n" for line in new)

    def wait_for_line(self, pattern: str, timeout: float = DEADLINE, count: int = 1) -> re.Match[str]:
        """Wait until ``count`` lines match a regular expression; return the match of the last of these."""

        def matches() -> list[re.Match[str]]:
            return [match for line in self.lines if (match := re.search(pattern, line))]

        with self._changed:
            self._changed.wait_for(lambda: self._at_end or len(matches()) >= count, timeout)
            found = matches()
        self.show()
        if len(found) < count:
            why = "it ended" if self._at_end else f"{timeout:g} seconds went by"
            raise AssertionError(f"No line {pattern!r}: {why}.")
        return found[count - 1]

    # Its processes

    @property
    def pid(self) -> int:
        return self.process.pid

    def members(self) -> list[psutil.Process]:
        """Return the live processes that descend from it, itself included, orphans and daemons too."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:  # of somebody else, or gone
                continue
        return found

    def send(self, number: int) -> None:
        """Send a signal to the process that was started, and to no other."""
        self.process.send_signal(number)

    def wait(self, timeout: float = DEADLINE) -> int:
        """Return its exit status, negative if a signal ended it, once it has ended and all is read."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.show()
            raise AssertionError(f"{self.command} has not ended within {timeout:g} seconds.") from None
        self._reader.join(1)  # longer only if somebody it left behind still holds the pipe
        self.show()
        return status

    def stop(self, number: int = signal.SIGTERM, timeout: float = DEADLINE) -> int:
        """Send it a signal, and return its exit status."""
        self.send(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """Kill whatever is left of it."""
        deadline = time.monotonic() + DEADLINE
        self.process.kill()
        self.process.wait(DEADLINE)
        while members := self.members():  # they may fork meanwhile
            assert time.monotonic() < deadline, f"They cannot be killed: {members}"
            for process in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.01)  # not for each to be gone: a zombie is, but whose it is may not look yet
        self._reader.join(DEADLINE)
        self.show()


class RunningSite(Running):
    """``manage.py runbus`` with some arguments, of the testproject if ``manage`` names no other."""

    def __init__(
        self,
        *arguments: str,
        manage: str = MANAGE,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        super().__init__(manage, "runbus", *arguments, env=env, cwd=cwd)

    def wait_until_started(self, timeout: float = DEADLINE) -> dict[str, str]:
        """Wait for the banner; return its URLs: alias -> the first of that server, without the slash."""
        self.wait_for_line(r"^Quit with", timeout)
        found = (re.match(r"  (\S+) +(http://\S+)/ ", line) for line in self.lines)
        return {match[1]: match[2] for match in found if match}


def fetch(url: str, timeout: float = DEADLINE) -> str:
    """Return the body of a page; an error if its status says so."""
    with urllib.request.urlopen(url, timeout=timeout) as response:
        body: bytes = response.read()
    return body.decode()


def fetch_json(url: str, timeout: float = DEADLINE) -> Any:
    return json.loads(fetch(url, timeout))


def has_signal(pid: int, mask: str, number: int) -> bool:
    """Return whether a signal is in a mask of /proc/PID/status: ``SigCgt`` has those with a handler."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"^{mask}:\s*(\w+)$", status, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> (number - 1) & 1)


def wakeups(pid: int) -> int:
    """Return how often the threads of a process have been woken up so far."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if "ctxt_switches" in line:
                count += int(line.split()[1])
    return count
