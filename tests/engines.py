"""Engines of a fleet for tests: Redis and PostgreSQL servers on loopback, each with its data in a folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from .processes import DEADLINE, Running, free_port


def find(program: str) -> str:
    """Return the path of a program. Debian keeps those of PostgreSQL in a folder for each version."""
    folders = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(program, path=os.pathsep.join([*folders, "/usr/sbin", os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"no {program} on this machine")
    return found


class EngineServer:
    """A server, as a context manager: it runs within it, unless a test ends it."""

    ready: str
    """A regular expression for the line that it prints when it takes connections."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="engine-"))
        self.running: Running | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.running = Running(*self.command(), cwd=self.folder)
        self.running.__enter__()
        self.running.wait_for_line(self.ready)

    def kill(self) -> None:
        """Kill it with all of its processes, as a power cut would."""
        if self.running is not None:
            self.running.kill()
            self.running = None

    def freeze(self) -> None:
        """Stop all of its processes: connections stay open, and get no answer."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        assert self.running is not None
        for process in self.running.members():
            process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder)


class RedisServer(EngineServer):
    """Redis without a file: after a kill, it comes back empty. ``options``: as in redis.conf."""

    ready = "Ready to accept connections"

    def __init__(self, **options: str) -> None:
        super().__init__()
        self.options = {"save": "", "appendonly": "no", "bind": "127.0.0.1", **options}

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        options = [
            part for name, value in self.options.items() for part in (f"--{name.replace('_', '-')}", value)
        ]
        return [find("redis-server"), "--port", str(self.port), *options]

    def call(self, *command: str) -> str:
        """Send a command, and return the answer: a line, or what follows the line of its size."""
        with (
            socket.create_connection(("127.0.0.1", self.port), DEADLINE) as sock,
            sock.makefile("rwb") as file,
        ):
            file.write(f"*{len(command)}\r\n".encode())
            for part in command:
                file.write(f"${len(part.encode())}\r\n{part}\r\n".encode())
            file.flush()
            answer = file.readline().decode().strip()
            assert not answer.startswith("-"), answer
            return file.readline().decode().strip() if answer.startswith("$") else answer
