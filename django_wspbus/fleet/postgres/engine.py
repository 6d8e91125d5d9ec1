"""The engine over PostgreSQL: rows of the app's tables, and LISTEN and NOTIFY."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction

from ...conf.findings import Problem
from ...process.leader import NotLeader
from ..base import DEFAULT_LEASE, LEADER, Engine, Lease, Listener, Member, Run, Unavailable
from . import checks, queries
from .connection import MOST_CHUNKS, Connection, PostgresListener, execute, is_one_database, open_connection

LONGEST_PAYLOAD = 7999
"""The most bytes of a notification."""


class PostgresFleet(Engine):
    """OPTIONS: ``database``, an alias of DATABASES, and ``lease`` in seconds."""

    largest = 2**16

    def __init__(self, name: str, database: str = "default", lease: float = DEFAULT_LEASE) -> None:
        super().__init__(name, lease)
        self.database = database
        self._connection: Connection | None = None
        self._aliases: dict[str, bool] = {database: True}
        """Alias -> whether it names the database of the fleet."""

    # Checks

    @classmethod
    def check_options(cls, path: str, options: Mapping[str, Any]) -> Iterable[Problem]:
        yield from super().check_options(path, options)
        yield from checks.check_database(path, options)

    def check(self, path: str) -> Iterable[Problem]:
        ((in_recovery, is_read_only),) = self._execute(queries.CONDITION)
        found = list(checks.check_condition(path, in_recovery, is_read_only))
        found += checks.check_tables(path, self.database, self._execute(queries.TABLES))
        if not found:
            found += checks.check_privileges(path, self._execute(queries.MISSING_PRIVILEGES))
            found += checks.check_notifications(path, self)
        return found

    # The connection

    def connect(self) -> None:
        if self._connection is None:
            self._connection = open_connection(self.database, self.timeout)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _execute(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        self.connect()
        assert self._connection is not None
        try:
            return execute(self._connection, query, fleet=self.name, **values)
        except Unavailable:
            self.close()
            raise

    def time(self) -> float:
        ((time,),) = self._execute(queries.TIME)
        return float(time)

    # Messages

    def send(self, messages: Sequence[tuple[str | None, bytes]]) -> None:
        self._execute(queries.SEND, **self._notifications(messages))

    def _notifications(self, messages: Sequence[tuple[str | None, bytes]]) -> dict[str, list[str]]:
        channels, payloads = [], []
        for member, message in messages:
            for chunk in chunks(message.decode("ascii")):
                channels.append(self._channel(member))
                payloads.append(chunk)
        return {"channels": channels, "payloads": payloads}

    def _channel(self, member: str | None) -> str:
        # The name of a channel has 63 bytes at most.
        fleet = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        return f"wspbus_{fleet}_{member or 'all'}"

    def listen(self, member: str) -> Listener:
        connection = open_connection(self.database, self.timeout)
        return PostgresListener(connection, [self._channel(None), self._channel(member)])

    # Members

    def beat(self, member: Member) -> float:
        ((seen, _),) = self._execute(queries.BEAT, member=member.id, data=member.as_json())
        return float(seen)

    def leave(self, member: str) -> None:
        self._execute(queries.LEAVE, member=member)

    def members(self) -> list[Member]:
        return [Member.from_json(*row) for row in self._execute(queries.MEMBERS)]

    # Leases

    def read(self, name: str) -> Lease | None:
        return self._lease(queries.READ, name=name)

    def take(self, name: str, seen: Lease | None, holder: str) -> Lease | None:
        if seen is None:
            return self._lease(queries.TAKE_FIRST, name=name, holder=holder)
        return self._lease(queries.TAKE, name=name, token=seen.token, beat=seen.beat, holder=holder)

    def renew(self, name: str, lease: Lease) -> Lease | None:
        return self._lease(queries.RENEW, name=name, token=lease.token)

    def release(self, name: str, lease: Lease) -> bool:
        return self._lease(queries.RELEASE, name=name, token=lease.token) is not None

    def _lease(self, query: str, **values: Any) -> Lease | None:
        rows = self._execute(query, **values)
        return Lease(*rows[0][:3]) if rows else None

    # Jobs

    def runs(self) -> list[Run]:
        return [Run.from_json(data) for (data,) in self._execute(queries.RUNS)]

    def claim(self, run: Run) -> bool:
        return bool(self._execute(queries.CLAIM, job=run.job, tick=run.tick, data=run.as_json()))

    def finish(self, run: Run) -> bool:
        return bool(self._execute(queries.FINISH, job=run.job, tick=run.tick, data=run.as_json()))

    # Transactions of the project's database

    def send_in_transaction(self, messages: Sequence[tuple[str | None, bytes]], using: str | None) -> None:
        alias = self.database if using is None else using
        self._require(alias, "A message of a transaction (atomic=True)")
        if not connections[alias].in_atomic_block:
            raise transaction.TransactionManagementError(
                f"A message of a transaction (atomic=True) needs transaction.atomic(using={alias!r})."
            )
        with connections[alias].cursor() as cursor:
            cursor.execute(queries.SEND_IN_TRANSACTION, self._notifications(messages))

    @contextmanager
    def fence(self, token: int, using: str) -> Generator[None]:
        self._require(using, "bus.leader.fence()")
        with transaction.atomic(using=using):
            values: dict[str, str | int] = {
                "fleet": self.name,
                "name": LEADER,
                "token": token,
                "milliseconds": str(round(self.lease * 1000)),
            }
            with connections[using].cursor() as cursor:
                cursor.execute(queries.FENCE, values)
                if cursor.fetchone() is None:
                    raise NotLeader(f"The token {token} is not that of the leader any more.")
            yield

    def _require(self, alias: str, user: str) -> None:
        """Raise an error if an alias is not the database of the fleet."""
        if alias not in self._aliases:
            self._aliases[alias] = is_one_database(alias, self.database)
        if not self._aliases[alias]:
            raise ImproperlyConfigured(
                f"{user} needs the database of the fleet, {self.database!r}, and not {alias!r}."
            )


def chunks(text: str) -> Iterator[str]:
    """Divide a message into notifications. No two are equal: a transaction sends equal ones once."""
    serial = secrets.token_hex(6)
    size = LONGEST_PAYLOAD - len(f"{serial} {MOST_CHUNKS}/{MOST_CHUNKS} ")
    count = max(-(-len(text) // size), 1)
    for index in range(count):
        yield f"{serial} {index}/{count} {text[index * size : (index + 1) * size]}"
