from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_wspbus.conf.addresses import parse
from django_wspbus.servers.sockets import Sockets
from django_wspbus.sockets.bound import Bound
from django_wspbus.wspbus import Bus
from tests.servers.conftest import shop as shop

from .clients import Bind, Clients


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Return a socket of a site, listening on an address as BIND has it; "unix" is any of that kind."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def start(address: str = "127.0.0.1:0") -> Bound:
            if address == "unix":
                address = f"unix:{Path(folder) / 'site.sock'}"
            sockets = Sockets(Bus(), {"shop": ((parse(address),), 20)})
            stack.callback(sockets.close)
            sockets.start()
            (bound,) = sockets.of("shop")
            return bound

        yield start


@pytest.fixture
def clients(bind: Bind) -> Iterator[Clients]:
    """A stack that closes connections when the test ends, before the socket is closed."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=["filtered", "without filters"])
def has_filters(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "filtered")
