"""FLEET: the engine that the sites of a project share, and the name of their fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import values
from .findings import Place, setting_path, without_passwords
from .keys import key, keys_of, read_section


def shown_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return OPTIONS for a terminal: without the password of a URL."""
    return {
        name: without_passwords(value) if isinstance(value, str) else value for name, value in options.items()
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetSettings:
    """FLEET, where it is on."""

    name: str = key(
        values.name,
        doc='the name of the fleet, like `"shop-production"`: sites with another name do not hear it',
    )
    backend: str = key(values.dotted, doc="the dotted path of an engine: see [fleet](fleet.md#engines)")
    options: Mapping[str, Any] = key(
        values.options,
        {},
        write=shown_options,
        doc="the engine's own settings: see [fleet](fleet.md#engines)",
    )
    version: str | None = key(
        values.optional_name,
        None,
        doc="the version of the code, for `wspbus status --fleet`; `None`: the path of its release",
    )

    @staticmethod
    def path(*keys: str) -> str:
        """Return the path of FLEET, or of a key of it, in the settings."""
        return setting_path("FLEET", *keys)


def read_fleet(place: Place, raw: Any) -> FleetSettings | None:
    if isinstance(raw, Mapping):
        return read_section(FleetSettings, place, raw)
    if raw is not None:
        names = ", ".join(each.name for each in keys_of(FleetSettings))
        place.wrong(raw, f"None, or a dict of {names}")
    return None
