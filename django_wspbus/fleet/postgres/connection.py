"""Connections to PostgreSQL that end what takes too long, and the one that listens."""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.errors import InsufficientPrivilege, QueryCanceled

from ..base import Denied, Listener, Unavailable
from . import queries

T = TypeVar("T")

PREFIX = "PostgreSQL: "
"""The beginning of each error."""

MOST_CHUNKS = 64
"""Notifications of one message; a larger number is not one of ours."""

MOST_UNFINISHED = 100
"""Messages that wait for the rest of their chunks."""


# PostgreSQL and pgbouncer give no code with the refusal of a connection. A server with messages in another
# language only seems to be away.
REFUSED = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|not permitted to log in|permission denied for|"
    r"(role|database|user) \"[^\"]*\" does not exist|no such (user|database)|SSL was required|"
    r"invalid connection option|invalid \w+ value|definition of service"
)
"""The reasons that do not pass by themselves."""

FIRST_WITH_IDLE_SESSION_TIMEOUT = 14_00_00


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose calls end after a time, also if the server hangs."""

    timeout = 5.0
    """Seconds for one call."""

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        deadline = time.monotonic() + self.timeout
        try:
            wanted = next(gen)
            while (rest := deadline - time.monotonic()) > 0:
                ready = _poll(self.pgconn.socket, wanted, rest)
                if ready:
                    wanted = gen.send(ready)
        except StopIteration as end:
            value: T = end.value
            return value
        raise Late(f"No answer within {self.timeout:g} s.")


class Late(psycopg.OperationalError):
    """The server did not answer in time."""


def _poll(descriptor: int, wanted: int, timeout: float) -> Any:
    """Wait until a socket is readable (1), writable (2), or either (3), as ``wanted``; 0 at the timeout."""
    poll = select.poll()
    poll.register(descriptor, (select.POLLIN if wanted & 1 else 0) | (select.POLLOUT if wanted & 2 else 0))
    events = poll.poll(timeout * 1000)
    if not events:
        return 0
    ready = (1 if events[0][1] & select.POLLIN else 0) | (2 if events[0][1] & select.POLLOUT else 0)
    return ready or wanted  # after a hang-up, reading or writing finds the reason


def open_connection(alias: str, timeout: float) -> Connection:
    """Connect to a database of the project. Each call ends after ``timeout`` seconds."""
    try:
        parameters = connections[alias].get_connection_params()
    except ImproperlyConfigured as error:
        raise Denied(f"PostgreSQL: {error}") from error
    for name in ("context", "cursor_factory"):  # Django's own
        parameters.pop(name, None)
    parameters |= {
        "application_name": "wspbus",
        "connect_timeout": max(round(timeout), 2),
        "keepalives_count": 3,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "tcp_user_timeout": round(timeout * 1000),
    }
    try:
        connection = _connect(parameters, timeout)
    except psycopg.Error as error:
        raise refused(str(error)) from error
    connection.timeout = timeout
    role = connections[alias].settings_dict["OPTIONS"].get("assume_role")
    if role:
        try:
            execute(connection, sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        except Unavailable as error:
            connection.close()
            raise refused(str(error).removeprefix(PREFIX)) from error
    return connection


def refused(text: str) -> Unavailable:
    """Return the error for the text of a failed connection, perhaps with several hosts."""
    if not REFUSED.search(text):
        return Unavailable(PREFIX + " ".join(text.split()))
    reason = text.rpartition("FATAL: ")[2] or text
    return Denied(PREFIX + " ".join(reason.split()))


def _connect(parameters: Mapping[str, Any], timeout: float) -> Connection:
    # The server gives up before the client, so that no statement takes effect later.
    options = f"{parameters.get('options') or ''} -c statement_timeout={round(timeout * 800)}"
    try:
        connection = Connection.connect(**{**parameters, "options": options.strip()}, autocommit=True)
    except psycopg.OperationalError as error:
        # A pooler takes no options. Set by a query instead, the timeout would hold for other clients of its
        # sessions.
        if "startup parameter" not in str(error):
            raise
        return Connection.connect(**parameters, autocommit=True)
    if connection.info.server_version >= FIRST_WITH_IDLE_SESSION_TIMEOUT:
        connection.execute("SET idle_session_timeout = 0")  # a connection that listens may be idle for long
    return connection


def execute(connection: Connection, query: Any, **values: Any) -> list[tuple[Any, ...]]:
    """Run a query, and return its rows."""
    try:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []
    except (Late, QueryCanceled) as error:
        raise Unavailable(f"PostgreSQL did not answer within {connection.timeout:g} s.") from error
    except psycopg.Error as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> Unavailable:
    kind = Denied if isinstance(error, InsufficientPrivilege) else Unavailable
    return kind(PREFIX + " ".join(str(error).split()))


class PostgresListener(Listener):
    def __init__(self, connection: Connection, channels: Sequence[str]) -> None:
        self._connection = connection
        self._in_use = threading.Lock()
        self._is_closed = False
        self._chunks: dict[str, list[str | None]] = {}
        try:
            execute(connection, "".join(f'LISTEN "{channel}";' for channel in channels))
        except Unavailable:
            connection.close()
            raise

    def receive(self, timeout: float) -> list[bytes]:
        with self._in_use:
            deadline = time.monotonic() + timeout
            try:
                while not (found := self._read()) and (rest := deadline - time.monotonic()) > 0:
                    _poll(self._connection.fileno(), 1, rest)
            except (psycopg.Error, OSError) as error:
                self._connection.close()
                if not self._is_closed:
                    raise unavailable(error) from error
                raise Unavailable("The connection has been closed.") from error
            return found

    def _read(self) -> list[bytes]:
        """Return the messages that have arrived whole."""
        found = []
        self._connection.pgconn.consume_input()
        while (notification := self._connection.pgconn.notifies()) is not None:
            message = self._join(notification.extra.decode("ascii", "replace"))
            if message is not None:
                found.append(message)
        return found

    def _join(self, payload: str) -> bytes | None:
        """Return the message that is whole with this chunk; None if it is not, or not one of ours."""
        try:
            serial, numbers, text = payload.split(" ", 2)
            index, count = map(int, numbers.split("/"))
        except ValueError:
            return None
        if not 0 <= index < count <= MOST_CHUNKS:
            return None
        chunks = self._chunks.setdefault(serial, [None] * count)
        if len(chunks) != count:
            return None
        chunks[index] = text
        if None in chunks:
            while len(self._chunks) > MOST_UNFINISHED:
                del self._chunks[next(iter(self._chunks))]
            return None
        return "".join(each or "" for each in self._chunks.pop(serial)).encode("ascii", "replace")

    def close(self) -> None:
        self._is_closed = True
        try:
            with socket.socket(fileno=os.dup(self._connection.fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)  # ends a `receive` in another thread
        except (psycopg.Error, OSError):  # it is closed already
            pass
        with self._in_use:
            self._connection.close()


def is_one_database(first: str, second: str) -> bool:
    """Return True if two aliases name one database, perhaps one of them through a pooler.

    If their settings do not show it, this asks the databases over the connections of this thread.
    """
    if first == second:
        return True
    databases: list[Mapping[str, Any]] = [connections.settings.get(alias, {}) for alias in (first, second)]
    ours, theirs = ([str(each.get(key, "")) for key in ("HOST", "PORT", "NAME")] for each in databases)
    if not all(databases) or ours == theirs:
        return all(databases)
    if any(connections[alias].vendor != "postgresql" for alias in (first, second)):
        return False
    return _identity(first) == _identity(second)


def _identity(alias: str) -> tuple[Any, ...]:
    """Return what tells a database from all others: the identifier of its server, and its own."""
    with connections[alias].cursor() as cursor:
        cursor.execute(queries.IDENTITY)
        return tuple(cursor.fetchone() or ())
