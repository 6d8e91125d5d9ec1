"""Connections to PostgreSQL that end what takes too long, and the one that listens."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from django.db import connections
from psycopg import sql
from psycopg.errors import InsufficientPrivilege, QueryCanceled
from psycopg.rows import tuple_row

from ..base import Denied, Listener, Unavailable
from . import queries

MOST_CHUNKS = 64
"""Notifications of one message; a larger number is not one of ours."""

MOST_UNFINISHED = 100
"""Messages that wait for the rest of their chunks."""

Connection = psycopg.Connection[tuple[Any, ...]]


def open_connection(alias: str, timeout: float) -> Connection:
    """Connect to a database of the project, which ends each statement after ``timeout`` seconds."""
    parameters = connections[alias].get_connection_params()
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
        connection = psycopg.connect(**parameters, autocommit=True, row_factory=tuple_row)
    except psycopg.Error as error:
        raise unavailable(error) from error
    try:
        # The server gives up first, so that no statement takes effect later.
        execute(connection, queries.SETTINGS, timeout, milliseconds=str(round(timeout * 800)))
        role = connections[alias].settings_dict["OPTIONS"].get("assume_role")
        if role:
            execute(connection, sql.SQL("SET ROLE {}").format(sql.Identifier(role)), timeout)
    except Unavailable:
        connection.close()
        raise
    return connection


def execute(connection: Connection, query: Any, timeout: float, **values: Any) -> list[tuple[Any, ...]]:
    """Run a query, and return its rows. The connection is cut off after ``timeout`` seconds."""
    timer = threading.Timer(timeout, cut_off, [connection])
    timer.daemon = True
    timer.start()
    began = time.monotonic()
    try:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []
    except psycopg.Error as error:
        if time.monotonic() - began >= timeout or isinstance(error, QueryCanceled):
            raise Unavailable(f"PostgreSQL did not answer within {timeout:g} s.") from error
        raise unavailable(error) from error
    finally:
        timer.cancel()
        timer.join()  # it may be about to use the socket, which the caller may close


def unavailable(error: Exception) -> Unavailable:
    kind = Denied if isinstance(error, InsufficientPrivilege) else Unavailable
    return kind(f"PostgreSQL: {' '.join(str(error).split())}")


def cut_off(connection: Connection) -> None:
    """End a call that is under way on a connection in another thread."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    except (psycopg.Error, OSError):  # it is closed already
        pass


class PostgresListener(Listener):
    def __init__(self, connection: Connection, channels: Sequence[str], timeout: float) -> None:
        self._connection = connection
        self._in_use = threading.Lock()
        self._is_closed = False
        self._chunks: dict[str, list[str | None]] = {}
        try:
            execute(connection, "".join(f'LISTEN "{channel}";' for channel in channels), timeout)
        except Unavailable:
            connection.close()
            raise

    def receive(self, timeout: float) -> list[bytes]:
        with self._in_use:
            deadline = time.monotonic() + timeout
            try:
                while not (found := self._read()) and (rest := deadline - time.monotonic()) > 0:
                    self._wait(rest)
            except (psycopg.Error, OSError) as error:
                self._connection.close()
                if not self._is_closed:
                    raise unavailable(error) from error
                raise Unavailable("The connection has been closed.") from error
            return found

    def _wait(self, timeout: float) -> None:
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        poll.poll(timeout * 1000)

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
        cut_off(self._connection)
        with self._in_use:
            self._connection.close()


def same_database(first: str, second: str) -> bool:
    """Return True if two aliases name one database."""
    if first == second:
        return True
    keys = ("HOST", "PORT", "NAME")
    databases: list[Mapping[str, Any]] = [connections.settings.get(alias, {}) for alias in (first, second)]
    ours, theirs = ([str(each.get(key, "")) for key in keys] for each in databases)
    return all(databases) and ours == theirs
