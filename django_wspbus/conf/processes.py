"""PROCESSES: the programs and management commands that run beside the servers."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from . import values
from .findings import Place, setting_path
from .keys import key, keys_of, read_section

RESTART, KEEP = "restart", "keep"
ALWAYS, DEBUG, PRODUCTION = "always", "debug", "production"
RESERVED = ("leader",)
"""Aliases of processes that the site starts by itself."""


def words(place: Place, raw: Any) -> tuple[str, ...]:
    """Read the words of a command line; None: ()."""
    if raw is None:
        return ()
    if values.is_list(raw) and raw and all(isinstance(word, str) for word in raw) and raw[0]:
        return tuple(raw)
    place.wrong(raw, 'a list of words: ["celery", "-A", "shop", "worker"]')
    return ()


def stop_signal(place: Place, raw: Any) -> str:
    if isinstance(raw, str) and raw.startswith("SIG") and hasattr(signal, raw):
        return raw
    place.add("E007", f"got {raw!r}.", 'It takes the name of a signal: "SIGTERM".')
    return "SIGTERM"


def environment(place: Place, raw: Any) -> Mapping[str, str]:
    if isinstance(raw, Mapping) and all(
        isinstance(name, str) and isinstance(value, str) for name, value in raw.items()
    ):
        return MappingProxyType(dict(raw))
    place.wrong(raw, "a dict of names and values, all of them strings")
    return values.EMPTY


def count(place: Place, raw: Any) -> int:
    return values.optional_count(place, raw) or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSettings:
    """One entry of PROCESSES."""

    alias: str
    command: tuple[str, ...] = key(
        words, None, doc='a management command and its arguments: `["db_worker"]`', write=list
    )
    program: tuple[str, ...] = key(
        words,
        None,
        doc='any other program and its arguments: `["celery", "-A", "shop", "worker"]`',
        write=list,
    )
    stop_signal: str = key(stop_signal, "SIGTERM", doc="the signal that asks it to stop")
    stop_timeout: float = key(
        values.timeout, 10, doc="seconds until it is killed, with all that it has started"
    )
    env: Mapping[str, str] = key(environment, {}, doc="variables that are added to its environment")
    count: int = key(
        count, 1, doc="the number of its instances; `{index}` in its arguments counts them from 1"
    )
    when: str = key(
        lambda place, raw: values.choice(place, raw, ALWAYS, DEBUG, PRODUCTION),
        ALWAYS,
        doc='`"always"`; `"debug"`: under `DEBUG` only; `"production"`: without `DEBUG` only',
    )
    graceful: str = key(
        lambda place, raw: values.choice(place, raw, RESTART, KEEP),
        RESTART,
        doc=(
            '`"restart"`: a reload restarts it, once the servers have switched; `"keep"`: a reload leaves it '
            "alone"
        ),
    )

    def path(self, *keys: str) -> str:
        """Return the path of this entry, or of a key of it, in the settings."""
        return setting_path("PROCESSES", self.alias, *keys)


def read_processes(place: Place, raw: Any) -> Mapping[str, ProcessSettings]:
    if not isinstance(raw, Mapping):
        place.wrong(raw, 'a dict: alias -> {"COMMAND": [...]} or {"PROGRAM": [...]}')
        return values.EMPTY
    found = {}
    for alias, entry in raw.items():
        here = place.at(alias)
        if not isinstance(alias, str) or not alias:
            here.wrong(alias, "a string as its alias")
        elif alias in RESERVED:
            here.add("E021", f"{alias!r} is the name of a process of the site.", "Choose another alias.")
        elif not isinstance(entry, Mapping):
            here.wrong(entry, f"a dict of {', '.join(each.name for each in keys_of(ProcessSettings))}")
        else:
            read = read_section(ProcessSettings, here, entry, alias=alias)
            if bool(read.command) == bool(read.program):
                here.add(
                    "E002",
                    f"got {'both' if read.command else 'neither'} of COMMAND and PROGRAM.",
                    "It takes one of them.",
                )
            found[alias] = read
    return MappingProxyType(found)
