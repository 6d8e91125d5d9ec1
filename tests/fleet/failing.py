"""Engines that fail, with a way for each site that can fail as well.

Each fault is a context manager. At its end the engine serves again, perhaps without some of its data.
"""

from __future__ import annotations

import contextlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

from ..engines import EngineServer, PostgresServer, PostgresStandby, RedisServer
from .ways import Way

TABLES = ("wspbus_fleet_lease", "wspbus_fleet_member", "wspbus_fleet_run")
"""The tables of a fleet on PostgreSQL."""


class FailingEngine(ABC):
    """An engine, and the ways to it, as a context manager. ``count``: the number of ways."""

    faults = ("killed", "frozen", "slow", "cut", "full", "read_only", "emptied", "failed_over")
    """The names of the faults."""

    lossy = ("emptied", "failed_over")
    """The faults after which writes that were acknowledged are gone."""

    def __init__(self, count: int) -> None:
        self.server = self._make_server()
        self._standby: EngineServer | None = None
        self._exits = contextlib.ExitStack()
        self._exits.callback(lambda: [_close(each) for each in (self.server, self._standby) if each])
        self.server.start()
        self.ways = [self._exits.enter_context(Way(self.server.port)) for _ in range(count)]

    @abstractmethod
    def _make_server(self) -> EngineServer: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._exits.close()

    @property
    def ports(self) -> list[int]:
        """The port of each way."""
        return [way.port for way in self.ways]

    def fail(self, fault: str) -> contextlib.AbstractContextManager[None]:
        """Begin a fault, by its name."""
        context: contextlib.AbstractContextManager[None] = getattr(self, fault)()
        return context

    # Faults of all engines

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """The server is gone, and returns with the data that it keeps."""
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections stay open, and get no answer."""
        self.server.freeze()
        try:
            yield
        finally:
            self.server.thaw()

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Each answer takes 10 seconds."""
        with contextlib.ExitStack() as stack:
            for way in self.ways:
                stack.enter_context(way.slow(10.0))
            yield

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """All connections are closed once."""
        for way in self.ways:
            way.cut()
        yield

    @contextlib.contextmanager
    def failed_over(self) -> Iterator[None]:
        """A standby that lacks the last writes takes the place of the server."""
        self._standby = standby = self._make_standby()
        self._follow(standby)
        self._detach(standby)
        try:
            yield  # what is written now gets lost
        finally:
            _close(self.server)
            self._promote(standby)
            self.server, self._standby = standby, None
            for way in self.ways:
                way.target = standby.port
                way.cut()

    @abstractmethod
    def _make_standby(self) -> EngineServer: ...

    @abstractmethod
    def _follow(self, standby: Any) -> None:
        """Start the standby, and wait until it has all data of the server."""

    @abstractmethod
    def _detach(self, standby: Any) -> None:
        """Make the standby follow the server no longer."""

    @abstractmethod
    def _promote(self, standby: Any) -> None: ...


class FailingRedis(FailingEngine):
    """Redis that writes to the disk, so that it has its data after a kill."""

    server: RedisServer

    def _make_server(self) -> RedisServer:
        return RedisServer(appendonly="yes", appendfsync="always")

    @contextlib.contextmanager
    def emptied(self) -> Iterator[None]:
        """The server is gone, and returns without any data."""
        self.server.kill()
        shutil.rmtree(self.server.folder / "appendonlydir")
        try:
            yield
        finally:
            self.server.start()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        self.server.call("CONFIG", "SET", "maxmemory", "1")
        try:
            yield
        finally:
            self.server.call("CONFIG", "SET", "maxmemory", "0")

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """It is a replica, whose primary is away."""
        self.server.call("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            self.server.call("REPLICAOF", "NO", "ONE")

    def _make_standby(self) -> RedisServer:
        return RedisServer(appendonly="yes", appendfsync="always", replicaof=f"127.0.0.1 {self.server.port}")

    def _follow(self, standby: RedisServer) -> None:
        standby.start()
        assert standby.running is not None
        standby.running.wait_for_line("Finished with success")

    def _detach(self, standby: RedisServer) -> None:
        standby.call("REPLICAOF", "NO", "ONE")

    def _promote(self, standby: RedisServer) -> None:
        del standby.options["replicaof"]  # for its next start


FULL = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$
"""


class FailingPostgres(FailingEngine):
    server: PostgresServer

    def _make_server(self) -> PostgresServer:
        server = PostgresServer()
        # What the project has committed survives a kill.
        server.options = {**server.options, "synchronous_commit": "on"}
        return server

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Its tables take no row, as if there was no space for one."""
        self.server.query(FULL)
        for table in TABLES:
            when = f"BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW"
            self.server.query(f"CREATE TRIGGER refuse {when} EXECUTE FUNCTION refuse()")
        try:
            yield
        finally:
            self.server.query("DROP FUNCTION refuse CASCADE")

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self._set("default_transaction_read_only", "on")
        try:
            yield
        finally:
            self._set("default_transaction_read_only", "off")

    @contextlib.contextmanager
    def emptied(self) -> Iterator[None]:
        """The tables of the fleet lose their rows, and all connections are closed."""
        self.server.query(f"TRUNCATE {', '.join(TABLES)}")
        with self.cut():
            yield

    def _set(self, name: str, value: str) -> None:
        self.server.query(f"ALTER SYSTEM SET {name} = {value}")
        self.server.query("SELECT pg_reload_conf()")

    def _make_standby(self) -> PostgresStandby:
        return PostgresStandby(self.server)

    def _follow(self, standby: PostgresStandby) -> None:
        standby.start()

    def _detach(self, standby: PostgresStandby) -> None:
        standby.query("ALTER SYSTEM SET primary_conninfo = ''")
        standby.query("SELECT pg_reload_conf()")
        assert standby.running is not None
        standby.running.wait_for_line("terminating walreceiver process")

    def _promote(self, standby: PostgresStandby) -> None:
        standby.query("SELECT pg_promote()")
        standby.ready = PostgresServer.ready  # for its next start


def _close(server: EngineServer) -> None:
    server.__exit__(None, None, None)


ENGINES: dict[str, type[FailingEngine]] = {"redis": FailingRedis, "postgres": FailingPostgres}
