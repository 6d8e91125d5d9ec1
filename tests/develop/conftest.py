from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.servers.load import Shop

from .broken import set_up
from .reloading import Development


@pytest.fixture
def development(tmp_path: Path) -> Development:
    """A project under DEBUG, in a folder of its own, which is started again when its files change."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Development(folder)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A project under DEBUG, in a folder of its own, for tests of which a spare is no matter."""
    folder = tmp_path / "project"
    folder.mkdir()
    shop = Shop(folder)
    set_up(shop)
    return shop


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
