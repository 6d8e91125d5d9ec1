"""The cost of each member of a fleet: of 4, 32 and 256 members, idle and busy."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, LiteralString, Protocol, Self

import psutil
import psycopg
import redis

from tests.engines import EngineServer, PostgresServer, RedisServer
from tests.processes import ROOT

from .measure import table

SIZES = (4, 32, 256)
PROCESSES = 4
"""Processes among which the members are divided: each member is two threads."""

IDLE = 15.0
"""Seconds: in which each member gives three signs of life."""

COUNT, RATE = 200, 20.0
"""Messages of one member to all, and their number per second."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A time, the processor time of the engine and of the members, in seconds; calls and messages so far."""

    time: float
    engine: float
    members: float
    calls: float
    received: float

    def since(self, before: Usage) -> Usage:
        return Usage(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))

    def without(self, idle: Usage) -> Usage:
        """Return the usage without that of an idle fleet in this time."""
        share = self.time / idle.time
        return Usage(
            *(whole - share * part for whole, part in zip(astuple(self), astuple(idle), strict=True))
        )


class Over(Protocol):
    """An engine, and the way to it."""

    server: EngineServer
    backend: str
    options: dict[str, Any]
    database: dict[str, str]

    def connections(self) -> int:
        """Return the number of connections that members have."""

    def calls(self) -> int:
        """Return the number of calls so far."""


class OverRedis:
    backend = "django_wspbus.fleet.redis.RedisFleet"

    def __init__(self, server: RedisServer) -> None:
        self.server: EngineServer = server
        self.options = {"url": server.url}
        self.database: dict[str, str] = {}
        self._client = redis.Redis.from_url(server.url)

    def connections(self) -> int:
        return len(self._client.client_list()) - 1  # without this one

    def calls(self) -> int:
        return int(self._client.info("stats")["total_commands_processed"])


class ManyConnections(PostgresServer):
    options = {**PostgresServer.options, "max_connections": "600"}


class OverPostgres:
    backend = "django_wspbus.fleet.postgres.PostgresFleet"

    def __init__(self, server: PostgresServer) -> None:
        self.server: EngineServer = server
        self.options: dict[str, Any] = {}
        self.database = server.settings
        subprocess.run([sys.executable, "-c", MIGRATE, json.dumps(self.database)], check=True)
        where = {name.lower(): value for name, value in self.database.items() if name != "ENGINE"}
        where["dbname"] = where.pop("name")
        self._connection = psycopg.connect(**where, autocommit=True)

    def _ask(self, query: LiteralString) -> int:
        (value,) = self._connection.execute(query).fetchone() or (0,)
        return int(value)

    def connections(self) -> int:
        return self._ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wspbus'")

    def calls(self) -> int:
        query: LiteralString = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        return self._ask(query)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()


MIGRATE = """
import json, sys
import django
from django.conf import settings
from django.core.management import call_command

databases = {"default": json.loads(sys.argv[1])}
settings.configure(INSTALLED_APPS=["django_wspbus.fleet.postgres"], DATABASES=databases)
django.setup()
call_command("migrate", verbosity=0)
"""


class Members:
    """The processes with the light members, and their engine."""

    def __init__(self, processes: list[subprocess.Popen[str]], over: Over) -> None:
        self.processes = processes
        self._over = over

    def broadcast(self, count: int, rate: float) -> None:
        self._command(self.processes[0], f"send {count} {rate}")

    def usage(self) -> Usage:
        reports = [self._command(each, "report") for each in self.processes]
        members = sum(report["seconds"] for report in reports)
        received = sum(report["received"] for report in reports)
        return Usage(time.monotonic(), self._seconds_of_engine(), members, self._over.calls(), received)

    def _command(self, process: subprocess.Popen[str], line: str) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    def _seconds_of_engine(self) -> float:
        assert self._over.server.running is not None
        first = psutil.Process(self._over.server.running.pid)
        processes = (first, *first.children(recursive=True))
        return (
            sum(int(Path(f"/proc/{each.pid}/schedstat").read_text().split()[0]) for each in processes) / 1e9
        )


def run() -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # the output of the servers
        rows = measure()
    columns = ["connections", "calls", "µs of the engine", "µs of a member"]
    title = "Of each member: its connections, and its calls and processor time in a second of an idle fleet"
    table(title, columns, {name: cells[:4] for name, cells in rows.items()})
    columns = ["µs of the engine", "µs of a member", "the engine in all (ms)"]
    title = "The processor time of a message, for each member that gets it"
    table(title, columns, {name: cells[4:] for name, cells in rows.items()})


def measure() -> dict[str, list[str]]:
    rows = {}
    with RedisServer() as server:
        server.start()
        for size in SIZES:
            rows[f"Redis, {size} members"] = measure_fleet(size, OverRedis(server))
    with ManyConnections() as postgres:
        postgres.start()
        with OverPostgres(postgres) as over:
            for size in SIZES:
                rows[f"PostgreSQL, {size} members"] = measure_fleet(size, over)
    return rows


def measure_fleet(size: int, over: Over) -> list[str]:
    with light_members(size, over) as members:
        connections = over.connections()
        before = members.usage()
        time.sleep(IDLE)
        idle = members.usage().since(before)
        before = members.usage()
        members.broadcast(COUNT, RATE)
        while (busy := members.usage().since(before)).received < COUNT * (size - 1):
            time.sleep(0.5)
    busy = busy.without(idle)
    return [
        f"{connections / size:.1f}",
        f"{idle.calls / size / idle.time:.1f}",
        f"{idle.engine / size / idle.time * 1e6:.0f}",
        f"{idle.members / size / idle.time * 1e6:.0f}",
        f"{busy.engine / busy.received * 1e6:.0f}",
        f"{busy.members / busy.received * 1e6:.0f}",
        f"{busy.engine / COUNT * 1e3:.2f}",
    ]


@contextlib.contextmanager
def light_members(size: int, over: Over) -> Iterator[Members]:
    """Start members, and wait until all of them listen."""
    processes: list[subprocess.Popen[str]] = []
    given = {"key": "secret", "backend": over.backend, "options": over.options, "database": over.database}
    try:
        for _ in range(PROCESSES):
            argument = json.dumps({**given, "count": size // PROCESSES})
            command = [sys.executable, "-m", "tests.benchmarks.light_members", argument]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            processes.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield Members(processes, over)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
