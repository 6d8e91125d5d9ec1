"""Messages that belong to a transaction of the project's database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from django_wspbus import conf
from django_wspbus.conf import FleetSettings
from django_wspbus.fleet.base import Engine
from django_wspbus.fleet.transaction import send_in_transaction
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


def test_without_postgresql_no_message_can_be_part_of_a_transaction() -> None:
    with pytest.raises(ImproperlyConfigured, match="atomic=True"):
        ProcessBus().broadcast("shop.changed", 1, atomic=True)


@pytest.mark.extended
@pytest.mark.usefixtures("unblocked")
def test_postgresql_sends_a_message_with_the_commit(postgres_server: Any, postgres_engine: Connect) -> None:
    settings = FleetSettings(
        name="shop",
        backend="django_wspbus.fleet.postgres.PostgresFleet",
        options={"database": ALIAS},
        version=None,
    )
    engine: Engine = postgres_engine("shop")
    node = Node(engine, 1, keys=conf.secret_keys())
    try:
        with transaction.atomic(using=ALIAS):
            send_in_transaction(settings, "shop.changed", ["rolled back"], None)
            transaction.set_rollback(True, using=ALIAS)
        with transaction.atomic(using=ALIAS):
            send_in_transaction(settings, "shop.changed", ["x" * 60_000], None)
            assert node.inbox.delivered == []
        node.inbox.expect(lambda: node.inbox.delivered)
        assert node.inbox.delivered == ["x" * 60_000]
        with pytest.raises(transaction.TransactionManagementError):
            send_in_transaction(settings, "shop.changed", ["outside"], None)
    finally:
        node.relay.close(5)
