"""Run real programs in tests: start them, read their output, and always end them.

Each program has its own session, so that signals to the tests do not reach it. It and its descendants carry a
mark in their environment, by which the tests find even a daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
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
"""Seconds to wait at most for anything in a test; far more than needed, because machines may be busy."""

MARK = "TEST_PROGRAM"


def start(
    command: list[str], *, env: Mapping[str, str], cwd: str | Path | None, stdout: int, stderr: int
) -> subprocess.Popen[bytes] | Forked:
    """Start a program in its own session and without input, from the fork server if `can_fork`."""
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
    """Run a program to its end, with its output as text."""
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
    """A program, as a context manager. A thread reads its output, stdout and stderr together.

    The output becomes part of the test's own output, which pytest shows when the test fails. If ``command``
    begins with a path that ends with ``.py``, this interpreter runs it. ``env`` is added to the environment.
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

    # Output

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
        """The output so far."""
        return "\n".join(self.lines)

    def show(self) -> None:
        """Write new lines to the test's own output. Written by a thread, they might appear between tests."""
        new = self.lines[self._shown :]
        self._shown += len(new)
        sys.stdout.writelines(f"{line}\n" for line in new)

    def wait_for_line(self, pattern: str, timeout: float = DEADLINE, count: int = 1) -> re.Match[str]:
        """Wait until ``count`` lines match a regular expression; return the match of the last one."""

        def matches() -> list[re.Match[str]]:
            return [match for line in self.lines if (match := re.search(pattern, line))]

        with self._changed:
            self._changed.wait_for(lambda: self._at_end or len(matches()) >= count, timeout)
            found = matches()
        self.show()
        if len(found) < count:
            reason = "the program ended" if self._at_end else f"{timeout:g} seconds have passed"
            raise AssertionError(f"No line {pattern!r}: {reason}.")
        return found[count - 1]

    # Processes

    @property
    def pid(self) -> int:
        return self.process.pid

    def members(self) -> list[psutil.Process]:
        """Return the live processes of the program, including orphans and daemons."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:  # another user's process, or it has ended
                continue
        return found

    def names(self) -> set[str]:
        """Return the names of the programs that its live processes run."""
        found = set()
        for process in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end between both looks
                found.add(process.name())
        return found

    def send(self, number: int) -> None:
        """Send a signal to the started process only."""
        self.process.send_signal(number)

    def wait(self, timeout: float = DEADLINE) -> int:
        """Wait for its end and its output; return the exit status, negative if a signal ended it."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.show()
            raise AssertionError(f"{self.command} has not ended within {timeout:g} seconds.") from None
        self._reader.join(1)  # not without a limit, as a process that it left behind may hold the pipe
        if self._reader.is_alive() and not self.members():
            self._reader.join(DEADLINE)
        self.show()
        return status

    def wait_for_members(self) -> None:
        """Wait until none of its processes is left: one that the program has killed ends a moment later."""
        deadline = time.monotonic() + DEADLINE
        while members := self.members():
            assert time.monotonic() < deadline, f"These processes are left: {members}"
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM, timeout: float = DEADLINE) -> int:
        """Send it a signal, wait for its end, and return its exit status."""
        self.send(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """Kill all of its processes."""
        deadline = time.monotonic() + DEADLINE
        self.process.kill()
        self.process.wait(DEADLINE)
        while members := self.members():  # they may fork meanwhile
            assert time.monotonic() < deadline, f"These processes cannot be killed: {members}"
            for process in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.01)  # until no member is left, and not until each is reaped: its parent may be busy
        self._reader.join(DEADLINE)
        self.show()


class RunningSite(Running):
    """``manage.py runbus`` with arguments. ``manage`` defaults to that of the testproject."""

    def __init__(
        self,
        *arguments: str,
        manage: str = MANAGE,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        super().__init__(manage, "runbus", *arguments, env=env, cwd=cwd)

    def wait_until_started(self, timeout: float = DEADLINE) -> dict[str, str]:
        """Wait for the banner; return its URLs: alias -> first URL of the server, without the last slash."""
        self.wait_for_line(r"^Quit with", timeout)
        found = (re.match(r"  (\S+) +(http://\S+)/ ", line) for line in self.lines)
        return {match[1]: match[2] for match in found if match}


def free_port() -> int:
    """Return a port that is free, and which the kernel gives to no process that asks for any."""
    while True:
        port = 15_000 + secrets.randbelow(15_000)  # below ip_local_port_range
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def fetch(url: str, timeout: float = DEADLINE) -> str:
    """Return the body of a page; HTTPError if its status is an error."""
    with urllib.request.urlopen(url, timeout=timeout) as response:
        body: bytes = response.read()
    return body.decode()


def fetch_json(url: str, timeout: float = DEADLINE) -> Any:
    return json.loads(fetch(url, timeout))


def has_signal(pid: int, mask: str, number: int) -> bool:
    """Return whether a signal is in a mask of /proc/PID/status, such as ``SigCgt`` (with a handler)."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"^{mask}:\s*(\w+)$", status, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> (number - 1) & 1)


def wakeups(pid: int) -> int:
    """Return the number of context switches of a process's threads so far."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):  # the thread has ended
            for line in status.read_text().splitlines():
                if "ctxt_switches" in line:
                    count += int(line.split()[1])
    return count
