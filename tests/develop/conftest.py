from __future__ import annotations

from pathlib import Path

import pytest

from .reloading import Development


@pytest.fixture
def development(tmp_path: Path) -> Development:
    """A project under DEBUG, in a folder of its own, which is started again when its files change."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Development(folder)
