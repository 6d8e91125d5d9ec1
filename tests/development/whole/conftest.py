from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

import pytest

from .broken import Edited, without_spare
from .reloading import Development


@pytest.fixture
def development(tmp_path: Path) -> Development:
    """A project under DEBUG, in a folder of its own, that restarts when its files change."""
    return Development(tmp_path / "project")


@pytest.fixture
def shop(tmp_path: Path) -> Edited:
    """A project under DEBUG, in a folder of its own, without a spare."""
    shop = Edited(tmp_path / "project")
    without_spare(shop)
    return shop


@pytest.fixture
def free_port() -> int:
    """A port that is free, below those that Linux gives to sockets by itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
