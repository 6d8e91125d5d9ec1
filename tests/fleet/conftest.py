from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django.utils.module_loading import import_string

from django_wspbus.fleet.base import Engine
from django_wspbus.fleet.local import LocalEngine

from ..engines import PostgresServer, RedisServer

Connect = Callable[..., Engine]

APP = "django_wspbus.fleet.postgres"
"""The app of its engine."""

ALIAS = "fleet"
"""The alias of the database of PostgreSQL, besides that of the testproject."""


@contextlib.contextmanager
def database(alias: str, entry: Mapping[str, Any]) -> Iterator[None]:
    """Add an entry to DATABASES."""
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: dict(entry)})[alias]
    try:
        yield
    finally:
        if hasattr(connections._connections, alias):
            connections[alias].close()
            del connections[alias]
        del connections.settings[alias]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that the tests of a module share; they leave it running."""
    with RedisServer() as server:
        server.start()
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of one test, which may end it."""
    with RedisServer() as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def postgres_server(django_db_blocker: Any) -> Iterator[PostgresServer]:
    """A PostgreSQL with the tables of the fleet that the tests of a module share; they leave it running."""
    with PostgresServer() as server:
        server.start()
        apps = [*settings.INSTALLED_APPS, APP]
        with database(ALIAS, server.settings), override_settings(INSTALLED_APPS=apps):
            with django_db_blocker.unblock():
                call_command("migrate", "wspbus_fleet", database=ALIAS, verbosity=0)
            yield server


KINDS = ["local", *(pytest.param(kind, marks=pytest.mark.extended) for kind in ("redis", "postgres"))]
if "FLEET_BACKEND" in os.environ:
    KINDS = ["own"]


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make another connection to the engine of a fleet, by its name; each kind of engine in turn."""
    made: list[Engine] = []
    suffix = secrets.token_hex(4)
    stores: dict[str, LocalEngine] = {}

    def make(name: str = "shop") -> Engine:
        name = f"{name}-{suffix}"
        if request.param == "local":
            return stores.setdefault(name, LocalEngine(name))
        made.append(request.getfixturevalue(f"{request.param}_engine")(name))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def own_engine() -> Connect:
    """The engine with the dotted path FLEET_BACKEND, and FLEET_OPTIONS, JSON, as its OPTIONS."""
    engine = import_string(os.environ["FLEET_BACKEND"])
    return lambda name: engine(name, **json.loads(os.environ.get("FLEET_OPTIONS", "{}")))


@pytest.fixture
def redis_engine(redis_server: RedisServer) -> Connect:
    from django_wspbus.fleet.redis import RedisFleet

    return lambda name, **options: RedisFleet(name, redis_server.url, **options)


@pytest.fixture
def postgres_engine(postgres_server: PostgresServer) -> Connect:
    from django_wspbus.fleet.postgres import PostgresFleet

    return lambda name, **options: PostgresFleet(name, ALIAS, **options)
