from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from django_wspbus.fleet.base import Engine
from django_wspbus.fleet.local import LocalEngine

from ..engines import RedisServer

Connect = Callable[..., Engine]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that the tests of a module share; they leave it running."""
    with RedisServer() as server:
        server.start()
        yield server


KINDS = ["local", *(pytest.param(kind, marks=pytest.mark.extended) for kind in ("redis",))]


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
def redis_engine(redis_server: RedisServer) -> Connect:
    from django_wspbus.fleet.redis import RedisFleet

    return lambda name, **options: RedisFleet(name, redis_server.url, **options)
