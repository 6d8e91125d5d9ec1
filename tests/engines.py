"""Engines of a fleet for tests: Redis and PostgreSQL servers on loopback, each with its data in a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psutil
import pytest

from .processes import DEADLINE, Running, free_port


def find(program: str) -> str:
    """Return the path of a program. Debian keeps those of PostgreSQL in a folder for each version."""
    folders = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(program, path=os.pathsep.join([*folders, "/usr/sbin", os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"no {program} on this machine")
    return found


AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
"""PostgreSQL refuses to run as root."""


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
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        assert self.running is not None
        for process in psutil.Process(self.running.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # a worker of PostgreSQL may end at any time
                process.send_signal(number)
        self.running.send(number)

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
        self.options = {
            "save": "",
            "appendonly": "no",
            "bind": "127.0.0.1",
            "repl_diskless_sync_delay": "0",
            **options,
        }

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        options = [
            part for name, value in self.options.items() for part in (f"--{name.replace('_', '-')}", value)
        ]
        return [find("redis-server"), "--port", str(self.port), *options]

    def call(self, *command: str) -> str:
        """Send a command, and return the answer: a line, or a text, which is "" if there is none."""
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
            return file.read(max(int(answer[1:]), 0)).decode() if answer.startswith("$") else answer


class PostgresServer(EngineServer):
    """PostgreSQL with a user ``shop``, who needs no password; a user ``locked`` does. Data survive a kill."""

    ready = "database system is ready to accept"
    # The data need not survive a power cut, so that tests are faster.
    options = {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
    }

    database: ClassVar = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "NAME": "postgres",
        "USER": "shop",
    }

    def __init__(self) -> None:
        super().__init__()
        self.data = self.folder / "data"
        if AS_NOBODY:
            shutil.chown(self.folder, "nobody", "nogroup")
        self.make_data()

    def make_data(self) -> None:
        arguments = ["-D", str(self.data), "-A", "trust", "-U", "shop", "-E", "UTF8", "--no-sync"]
        self.run_tool("initdb", *arguments)
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"host all locked all scram-sha-256\n{rules.read_text()}")

    def run_tool(self, program: str, *arguments: str) -> None:
        command = [*AS_NOBODY, find(program), *arguments]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=120)

    def command(self) -> list[str]:
        listen = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        options = [
            part for name, value in (self.options | listen).items() for part in ("-c", f"{name}={value}")
        ]
        return [*AS_NOBODY, find("postgres"), "-D", str(self.data), *options]

    @property
    def settings(self) -> dict[str, str]:
        """Its entry in DATABASES."""
        return {**self.database, "PORT": str(self.port)}

    def query(self, query: str) -> None:
        self.run_tool(
            "psql", "-X", "-h", "127.0.0.1", "-p", str(self.port), "-U", "shop", "-d", "postgres", "-c", query
        )


class PostgresStandby(PostgresServer):
    """A standby of another server."""

    ready = "database system is ready to accept read-only connections"

    def __init__(self, primary: PostgresServer) -> None:
        self.primary = primary
        super().__init__()

    def make_data(self) -> None:
        where = ["-h", "127.0.0.1", "-p", str(self.primary.port), "-U", "shop"]
        self.run_tool(
            "pg_basebackup", *where, "-D", str(self.data), "--write-recovery-conf", "--checkpoint=fast"
        )


class Pooler(EngineServer):
    """A pgbouncer before a PostgreSQL. In the mode "transaction", each transaction has another session."""

    ready = "process up"

    def __init__(self, server: PostgresServer, mode: str) -> None:
        super().__init__()
        if AS_NOBODY:
            shutil.chown(self.folder, "nobody", "nogroup")
        (self.folder / "users").write_text('"shop" ""')
        lines = [
            "[databases]",
            f"postgres = host=127.0.0.1 port={server.port}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = trust",
            f"auth_file = {self.folder}/users",
            f"pool_mode = {mode}",
        ]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines))
        self.settings = {**server.settings, "PORT": str(self.port)}

    def command(self) -> list[str]:
        return [*AS_NOBODY, find("pgbouncer"), str(self.folder / "pgbouncer.ini")]
