from __future__ import annotations

from tests.servers.conftest import shop

__all__ = ["shop"]
