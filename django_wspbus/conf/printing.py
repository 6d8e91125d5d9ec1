"""The settings in force, as Python: ``runbus --print-settings``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .findings import setting_path
from .keys import keys_of
from .project import default_application
from .schema import Settings
from .sections import ServerSettings


def as_python(settings: Settings, options_of: Callable[[ServerSettings], Mapping[str, Any]]) -> Iterator[str]:
    """Yield each key as a line of Python. ``options_of``: returns the OPTIONS in force of a server."""
    for server in settings.servers.values():
        values = {key.name: key.write(getattr(server, key.field)) for key in keys_of(ServerSettings)}
        values["APPLICATION"] = server.application or default_application()
        values["OPTIONS"] = dict(options_of(server))
        for name, value in values.items():
            yield f"{server.path(name)} = {value!r}"
    for key in keys_of(Settings):
        if key.name != "SERVERS":
            yield f"{setting_path(key.name)} = {key.write(getattr(settings, key.field))!r}"
