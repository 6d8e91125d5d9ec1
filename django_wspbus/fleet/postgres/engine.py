"""The engine over PostgreSQL: rows of the app's models, and LISTEN and NOTIFY."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from ..base import DEFAULT_LEASE, Engine, Lease, Listener, Member, MemberProcess, Run, Unavailable

LONGEST_PAYLOAD = 7999
"""The most bytes of a notification."""

NOW = "extract(epoch FROM clock_timestamp())"
MICROSECONDS = f"({NOW} * 1000000)::bigint"


class PostgresFleet(Engine):
    """OPTIONS: ``database``, an alias of DATABASES, and ``lease`` in seconds."""

    largest = 2**16

    def __init__(self, name: str, database: str = "default", lease: float = DEFAULT_LEASE) -> None:
        super().__init__(name, lease)
        self.database = database
        self._connection: psycopg.Connection[Any] | None = None
        self._serials = itertools.count()
        self._prefix = os.urandom(4).hex()

    def _open(self) -> psycopg.Connection[Any]:
        params = dict(PARAMS)  # connections[self.database].get_connection_params()
        milliseconds = round(self.timeout * 1000)
        params |= {
            "connect_timeout": max(round(self.timeout), 2),
            "tcp_user_timeout": milliseconds,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "application_name": f"wspbus {self.name}"[:63],
        }
        try:
            return psycopg.connect(**params, autocommit=True, row_factory=tuple_row)
        except psycopg.Error as error:
            raise Unavailable(f"PostgreSQL: {_in_one_line(error)}") from error

    def connect(self) -> None:
        if self._connection is None:
            connection = self._open()
            # timeouts of the server's side, so that a call that we gave up does not take effect later
            connection.execute(
                "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)",
                (str(round(self.timeout * 1000)),) * 2,
            )
            self._connection = connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _execute(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        self.connect()
        assert self._connection is not None
        timer = threading.Timer(self.timeout, _cut_off, [self._connection])
        timer.daemon = True
        timer.start()
        try:
            cursor = self._connection.execute(query, {"fleet": self.name, **values})
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            self.close()
            raise Unavailable(f"PostgreSQL: {_in_one_line(error)}") from error
        finally:
            timer.cancel()

    def time(self) -> float:
        return float(self._execute(f"SELECT {NOW}")[0][0])

    # Messages

    def _channel(self, member: str | None) -> str:
        fleet = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        return f"wspbus_{fleet}_{member or 'all'}"

    def send(self, messages: Sequence[tuple[str | None, bytes]]) -> None:
        channels, payloads = [], []
        for member, message in messages:
            for chunk in self.chunks(message):
                channels.append(self._channel(member))
                payloads.append(chunk)
        self._execute(SEND, channels=channels, payloads=payloads)

    def chunks(self, message: bytes) -> Iterator[str]:
        """Equal notifications of a transaction collapse; the number tells them apart."""
        text, serial = message.decode("ascii"), f"{self._prefix}{next(self._serials):x}"
        size = LONGEST_PAYLOAD - len(serial) - 16
        count = max(-(-len(text) // size), 1)
        for index in range(count):
            yield f"{serial} {index} {count} {text[index * size : (index + 1) * size]}"

    def listen(self, member: str) -> Listener:
        return PostgresListener(self._open(), [self._channel(None), self._channel(member)])

    # Members

    def beat(self, member: Member) -> float:
        values = {key: value for key, value in asdict(member).items() if key not in ("id", "seen")}
        return float(
            self._execute(
                f"INSERT INTO wspbus_fleet_member (fleet, member, seen, data) VALUES (%(fleet)s, %(member)s, {NOW}, %(data)s) "
                "ON CONFLICT (fleet, member) DO UPDATE SET seen = excluded.seen, data = excluded.data RETURNING seen",
                member=member.id,
                data=json.dumps(values),
            )[0][0]
        )

    def leave(self, member: str) -> None:
        self._execute(
            "DELETE FROM wspbus_fleet_member WHERE fleet = %(fleet)s AND member = %(member)s", member=member
        )

    def members(self) -> list[Member]:
        rows = self._execute("SELECT member, seen, data FROM wspbus_fleet_member WHERE fleet = %(fleet)s")
        return [_member(*row) for row in rows]

    # Leases

    def read(self, name: str) -> Lease | None:
        rows = self._execute(
            "SELECT holder, token, beat FROM wspbus_fleet_lease WHERE fleet = %(fleet)s AND name = %(name)s",
            name=name,
        )
        return Lease(*rows[0]) if rows else None

    def take(self, name: str, seen: Lease | None, holder: str) -> Lease | None:
        rows = self._execute(TAKE_FIRST if seen is None else TAKE, name=name, holder=holder, **_seen(seen))
        return Lease(*rows[0]) if rows else None

    def renew(self, name: str, lease: Lease) -> Lease | None:
        rows = self._execute(RENEW, name=name, **_seen(lease))
        return Lease(*rows[0]) if rows else None

    def release(self, name: str, lease: Lease) -> bool:
        return bool(self._execute(RELEASE, name=name, **_seen(lease)))

    # Jobs

    def runs(self) -> list[Run]:
        rows = self._execute("SELECT data FROM wspbus_fleet_run WHERE fleet = %(fleet)s")
        return [Run(**json.loads(data)) for (data,) in rows]

    def claim(self, run: Run) -> bool:
        return bool(self._execute(CLAIM, job=run.job, tick=run.tick, data=json.dumps(asdict(run))))

    def finish(self, run: Run) -> bool:
        return bool(self._execute(FINISH, job=run.job, tick=run.tick, data=json.dumps(asdict(run))))


SEND = "SELECT pg_notify(channel, payload) FROM unnest(%(channels)s::text[], %(payloads)s::text[]) AS message(channel, payload)"
TAKE_FIRST = f"""
INSERT INTO wspbus_fleet_lease (fleet, name, holder, token, beat)
VALUES (%(fleet)s, %(name)s, %(holder)s, {MICROSECONDS}, 0)
ON CONFLICT DO NOTHING RETURNING holder, token, beat
"""
# A transaction that is fenced by the token holds a lock on the row: then the lease cannot be taken now.
TAKE = f"""
UPDATE wspbus_fleet_lease SET holder = %(holder)s, token = greatest(token + 1, {MICROSECONDS}), beat = 0
WHERE id = (
    SELECT id FROM wspbus_fleet_lease
    WHERE fleet = %(fleet)s AND name = %(name)s AND token = %(token)s AND beat = %(beat)s
    FOR UPDATE SKIP LOCKED
) RETURNING holder, token, beat
"""
SAME = "WHERE fleet = %(fleet)s AND name = %(name)s AND token = %(token)s AND beat = %(beat)s RETURNING holder, token, beat"
RENEW = f"UPDATE wspbus_fleet_lease SET beat = beat + 1 {SAME}"
RELEASE = f"UPDATE wspbus_fleet_lease SET holder = '', beat = beat + 1 {SAME}"
CLAIM = """
INSERT INTO wspbus_fleet_run AS run (fleet, job, tick, data) VALUES (%(fleet)s, %(job)s, %(tick)s, %(data)s)
ON CONFLICT (fleet, job) DO UPDATE SET tick = excluded.tick, data = excluded.data WHERE run.tick < excluded.tick
RETURNING tick
"""
FINISH = "UPDATE wspbus_fleet_run SET data = %(data)s WHERE fleet = %(fleet)s AND job = %(job)s AND tick = %(tick)s RETURNING tick"


class PostgresListener(Listener):
    def __init__(self, connection: psycopg.Connection[Any], channels: list[str]) -> None:
        self._connection = connection
        self._parts: dict[str, list[str | None]] = {}
        for channel in channels:
            connection.execute(f'LISTEN "{channel}"')

    def receive(self, timeout: float) -> list[bytes]:
        try:
            found = list(self._connection.notifies(timeout=timeout, stop_after=1))
        except (psycopg.Error, ValueError, OSError) as error:
            raise Unavailable(f"PostgreSQL: {_in_one_line(error)}") from error
        return [message for each in found if (message := self._join(each.payload)) is not None]

    def _join(self, payload: str) -> bytes | None:
        serial, index, count, text = payload.split(" ", 3)
        if count == "1":
            return text.encode()
        parts = self._parts.setdefault(serial, [None] * int(count))
        parts[int(index)] = text
        if None in parts:
            while len(self._parts) > 100:
                self._parts.pop(next(iter(self._parts)))
            return None
        return "".join(self._parts.pop(serial)).encode()

    def close(self) -> None:
        _cut_off(self._connection)


def _cut_off(connection) -> None:
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    except (psycopg.Error, OSError):
        pass


def _seen(lease):
    return {} if lease is None else {"token": lease.token, "beat": lease.beat}


def _member(member: str, seen: float, data: str) -> Member:
    fields = json.loads(data)
    fields["processes"] = [MemberProcess(**each) for each in fields["processes"]]
    return Member(id=member, seen=float(seen), **fields)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
