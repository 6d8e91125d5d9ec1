"""An engine of a project, for tests within one process."""

from __future__ import annotations

from typing import ClassVar

from django_wspbus.fleet.local import LocalEngine


class OwnEngine(LocalEngine):
    """All connections to one ``store`` share their memory."""

    stores: ClassVar[dict[tuple[str, str], OwnEngine]] = {}

    def __init__(self, name: str, store: str, lease: float = 15.0) -> None:
        super().__init__(name, lease)
        self.__dict__ = self.stores.setdefault((name, store), self).__dict__
