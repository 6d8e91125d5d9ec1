"""The engine of a site that is alone: everything is in the memory of the site process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.db import transaction

from .base import DEFAULT_LEASE, Engine, Lease, Listener, Member, Run, Unavailable


class LocalEngine(Engine):
    """The engine without FLEET. Any number of threads may use it; it is never unavailable."""

    largest = 2**20

    def __init__(self, name: str = "", lease: float = DEFAULT_LEASE) -> None:
        super().__init__(name, lease)
        self._lock = threading.Lock()
        self._listeners: list[LocalListener] = []
        self._members: dict[str, Member] = {}
        self._leases: dict[str, Lease] = {}
        self._runs: dict[str, Run] = {}

    def connect(self) -> None:
        pass

    def close(self) -> None:
        pass

    def time(self) -> float:
        return time.time()

    # Messages

    def send(self, messages: Sequence[tuple[str | None, bytes]]) -> None:
        with self._lock:
            for member, message in messages:
                for listener in self._listeners:
                    if member in (None, listener.member):
                        listener.put(message)

    def listen(self, member: str) -> Listener:
        listener = LocalListener(member, self._forget)
        with self._lock:
            self._listeners.append(listener)
        return listener

    def _forget(self, listener: LocalListener) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    # Members

    def beat(self, member: Member) -> float:
        now = self.time()
        with self._lock:
            self._members[member.id] = replace(member, seen=now)
        return now

    def leave(self, member: str) -> None:
        with self._lock:
            self._members.pop(member, None)

    def members(self) -> list[Member]:
        now = self.time()
        with self._lock:
            for each in list(self._members.values()):
                if each.is_forgotten(now):
                    del self._members[each.id]
            return list(self._members.values())

    # Leases

    def read(self, name: str) -> Lease | None:
        with self._lock:
            return self._leases.get(name)

    def take(self, name: str, seen: Lease | None, holder: str) -> Lease | None:
        with self._lock:
            if self._leases.get(name) != seen:
                return None
            last = 0 if seen is None else seen.token
            self._leases[name] = Lease(holder, max(last + 1, int(self.time() * 1e6)), 0)
            return self._leases[name]

    def set_lease(self, name: str, lease: Lease) -> None:
        """Set a lease, which no other site can have: to "released", or as the program before has left it."""
        with self._lock:
            self._leases[name] = lease

    def renew(self, name: str, lease: Lease) -> Lease | None:
        return self._change(name, lease, lease.holder)

    def release(self, name: str, lease: Lease) -> bool:
        return self._change(name, lease, "") is not None

    def _change(self, name: str, lease: Lease, holder: str) -> Lease | None:
        with self._lock:
            current = self._leases.get(name)
            if current is None or current.holder == "" or current.token != lease.token:
                return None
            self._leases[name] = Lease(holder, current.token, current.beat + 1)
            return self._leases[name]

    # Jobs

    def runs(self) -> list[Run]:
        with self._lock:
            return list(self._runs.values())

    def claim(self, run: Run) -> bool:
        with self._lock:
            last = self._runs.get(run.job)
            if last is not None and last.tick >= run.tick:
                return False
            self._runs[run.job] = run
            return True

    def finish(self, run: Run) -> bool:
        with self._lock:
            last = self._runs.get(run.job)
            if last is None or last.tick != run.tick:
                return False
            self._runs[run.job] = run
            return True

    # Transactions

    @contextmanager
    def fence(self, token: int, using: str) -> Generator[None]:
        """Run a transaction. The caller checks the token: the lease is in another process."""
        with transaction.atomic(using=using):
            yield


class LocalListener(Listener):
    def __init__(self, member: str, forget: Any) -> None:
        self.member = member
        self._forget = forget
        self._messages: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, message: bytes) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def receive(self, timeout: float) -> list[bytes]:
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._is_closed, timeout)
            if self._is_closed:
                raise Unavailable("The connection has been closed.")
            messages = list(self._messages)
            self._messages.clear()
        return messages

    def close(self) -> None:
        self._forget(self)
        with self._changed:
            self._is_closed = True
            self._changed.notify()
