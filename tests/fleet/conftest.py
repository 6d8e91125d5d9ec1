from __future__ import annotations

from collections.abc import Callable

import pytest

from django_wspbus.fleet.base import Engine
from django_wspbus.fleet.local import LocalEngine

Connect = Callable[..., Engine]


@pytest.fixture(params=["local"])
def connect() -> Connect:
    """Make another connection to the engine of a fleet, by its name; each kind of engine in turn."""
    stores: dict[str, LocalEngine] = {}
    return lambda name="shop": stores.setdefault(name, LocalEngine(name))
