from __future__ import annotations

from pathlib import Path

import pytest

from tests import processes

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
    return processes.free_port()
