"""Messages that belong to a transaction of the project's database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from django_wspbus import conf
from django_wspbus.fleet.guest import Guest
from django_wspbus.process.fleet import Fleet
from django_wspbus.process.fleet_of_site import FleetOfSite
from django_wspbus.process.process_bus import ProcessBus

from .conftest import ALIAS, Connect
from .test_relay import Node


@pytest.fixture
def heard(bus: ProcessBus) -> Iterator[list[Any]]:
    values: list[Any] = []
    bus.subscribe("shop.changed", values.append)
    yield values
    bus.unsubscribe("shop.changed", values.append)


@pytest.fixture
def unblocked(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.mark.django_db(transaction=True)
def test_on_commit_a_message_is_sent_after_the_commit_and_not_after_a_rollback(
    bus: ProcessBus, heard: list[Any]
) -> None:
    with transaction.atomic():
        bus.broadcast("shop.changed", "rolled back", on_commit=True)
        transaction.set_rollback(True)
    with transaction.atomic():
        bus.broadcast("shop.changed", "committed", on_commit=True)
        assert heard == []
    assert heard == ["committed"]
    bus.broadcast("shop.changed", "without a transaction", on_commit=True)
    assert heard == ["committed", "without a transaction"]


@pytest.mark.django_db
def test_errors_are_those_of_the_call_and_not_of_the_commit(bus: ProcessBus, heard: list[Any]) -> None:
    with pytest.raises(TypeError):
        bus.broadcast("shop.changed", object(), on_commit=True)
    with pytest.raises(ValueError, match=r"1,048,\d+ bytes; 1,048,576 are the most"):
        bus.broadcast("shop.changed", "x" * 2**20, on_commit=True)
    with pytest.raises(ValueError, match="'exit' belongs to the bus"):
        bus.broadcast("exit", on_commit=True)
    with pytest.raises(ValueError, match=r"'fleet\.gap' belongs to the bus"):
        bus.ask("fleet.gap")
    with pytest.raises(ValueError, match="at most 60 s"):
        bus.ask("shop.changed", 1, timeout=61)
    assert heard == []


class Worker(FleetOfSite):
    """The fleet as a worker has it, without its site: it delivers here what it would send there."""

    def __init__(self, bus: ProcessBus, before: Fleet) -> None:
        super().__init__(bus, None, before)  # type: ignore[arg-type]
        self.bus = bus
        self.sent: list[Any] = []

    def broadcast(self, channel: str, args: list[Any]) -> None:
        self.sent += args


@pytest.fixture
def worker() -> Worker:
    bus = ProcessBus()
    bus.fleet = Worker(bus, Guest(bus))
    return bus.fleet


@pytest.mark.django_db(transaction=True)
def test_without_fleet_a_message_of_a_transaction_is_sent_right_after_the_commit(worker: Worker) -> None:
    broadcast = worker.bus.broadcast
    with transaction.atomic():
        broadcast("shop.changed", "rolled back", atomic=True)
        transaction.set_rollback(True)
    with transaction.atomic():
        broadcast("shop.changed", "committed", atomic=True)
        assert worker.sent == []
    assert worker.sent == ["committed"]
    with pytest.raises(transaction.TransactionManagementError):
        broadcast("shop.changed", "outside", atomic=True)


def test_over_redis_no_message_can_be_part_of_a_transaction(worker: Worker, settings: Any) -> None:
    settings.WSPBUS = {"FLEET": {"NAME": "shop", "BACKEND": "django_wspbus.fleet.redis.RedisFleet"}}
    with pytest.raises(ImproperlyConfigured, match="atomic=True"):
        worker.bus.broadcast("shop.changed", 1, atomic=True)


@pytest.mark.extended
@pytest.mark.usefixtures("unblocked")
def test_postgresql_sends_a_message_with_the_commit(
    worker: Worker, postgres_engine: Connect, settings: Any
) -> None:
    backend = "django_wspbus.fleet.postgres.PostgresFleet"
    settings.WSPBUS = {"FLEET": {"NAME": "shop", "BACKEND": backend, "OPTIONS": {"database": ALIAS}}}
    node, broadcast = Node(postgres_engine("shop"), 1, keys=conf.secret_keys()), worker.bus.broadcast
    try:
        with transaction.atomic(using=ALIAS):
            broadcast("shop.changed", "rolled back", atomic=True)
            transaction.set_rollback(True, using=ALIAS)
        with transaction.atomic(using=ALIAS):
            broadcast("shop.changed", "x" * 60_000, atomic=True)
            assert node.inbox.delivered == []
        node.inbox.expect(lambda: node.inbox.delivered)
        assert node.inbox.delivered == ["x" * 60_000]
        assert worker.sent == []
        with pytest.raises(transaction.TransactionManagementError):
            broadcast("shop.changed", "outside", atomic=True)
        with pytest.raises(ValueError, match="65,536 are the most"):
            broadcast("shop.changed", "x" * 2**16)
    finally:
        node.relay.close(5)
