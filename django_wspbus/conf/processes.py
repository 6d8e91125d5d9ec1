"""PROCESSES: the programs and management commands that run beside the servers."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from . import values
from .findings import Place, setting_path
from .keys import key, keys_of, read_section
from .sections import LEADER_ALIAS

RESTART, KEEP = "restart", "keep"
ALWAYS, DEBUG, PRODUCTION = "always", "debug", "production"
RESERVED = (LEADER_ALIAS,)
"""Aliases of processes that the site starts by itself."""

NEVER = ("runbus", "runserver")
"""Management commands that are no programs of a site."""

MOST_INSTANCES = 1000


def words(place: Place, raw: Any) -> tuple[str, ...]:
    """Read the words of a command line; None: ()."""
    if raw is None:
        return ()
    if (
        values.is_list(raw)
        and raw
        and raw[0]
        and all(isinstance(word, str) and "\0" not in word for word in raw)
    ):
        return tuple(raw)
    place.wrong(raw, 'a list of words: ["celery", "-A", "shop", "worker"]')
    return ()


def write_words(written: tuple[str, ...]) -> list[str] | None:
    return list(written) or None


def command(place: Place, raw: Any) -> tuple[str, ...]:
    """Read the words of a management command; None: ()."""
    read = words(place, raw)
    if read and read[0] in NEVER:
        place.add("E002", f"{read[0]} serves the site itself.", "It takes a command that runs beside it.")
    return read


def stop_signal(place: Place, raw: Any) -> str:
    known = signal.Signals.__members__
    if isinstance(raw, str) and raw in known:
        return raw
    near = difflib.get_close_matches(str(raw).upper(), known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else 'It takes the name of a signal: "SIGTERM".'
    place.add("E007", f"there is no signal {raw!r} on this system.", hint)
    return "SIGTERM"


def environment(place: Place, raw: Any) -> Mapping[str, str]:
    if isinstance(raw, Mapping) and all(map(_is_variable, raw.items())):
        return MappingProxyType(dict(raw))
    place.wrong(raw, 'a dict of names and values, all of them strings: {"OMP_NUM_THREADS": "1"}')
    return values.EMPTY


def _is_variable(item: tuple[Any, Any]) -> bool:
    name, _ = item
    is_text = all(isinstance(each, str) and "\0" not in each for each in item)
    return is_text and bool(name) and "=" not in name


def count(place: Place, raw: Any) -> int:
    takes = f"a whole number from 1 to {MOST_INSTANCES}"
    if isinstance(raw, bool) or not isinstance(raw, int):
        place.wrong(raw, takes)
    elif not 0 < raw <= MOST_INSTANCES:
        place.add("E015", f"got {raw!r}.", f"It takes {takes}.")
    else:
        return raw
    return 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSettings:
    """One entry of PROCESSES."""

    alias: str
    command: tuple[str, ...] = key(
        command,
        None,
        write=write_words,
        doc='a management command and its arguments: `["db_worker"]`',
    )
    program: tuple[str, ...] = key(
        words,
        None,
        write=write_words,
        doc='any other program and its arguments: `["celery", "-A", "shop", "worker"]`',
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
        doc='`"always"`; `"debug"`: only under `DEBUG`; `"production"`: only without',
    )
    graceful: str = key(
        lambda place, raw: values.choice(place, raw, RESTART, KEEP),
        RESTART,
        doc='`"restart"`: a reload restarts it, once the servers have switched; `"keep"`: it does not',
    )

    def path(self, *keys: str) -> str:
        """Return the path of this entry, or of a key of it, in the settings."""
        return setting_path("PROCESSES", self.alias, *keys)

    def runs(self, *, debug: bool) -> bool:
        """Return whether WHEN lets it run; ``debug``: DEBUG."""
        return self.when == ALWAYS or (self.when == DEBUG) == debug


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
            here.add("E027", f"{alias!r} is the name of a process of the site.", "Choose another alias.")
        elif not isinstance(entry, Mapping):
            here.wrong(entry, f"a dict of {', '.join(each.name for each in keys_of(ProcessSettings))}")
        else:
            found[alias] = _read_process(here, alias, entry)
    return MappingProxyType(found)


def _read_process(place: Place, alias: str, entry: Mapping[Any, Any]) -> ProcessSettings:
    given = [name for name in ("COMMAND", "PROGRAM") if entry.get(name) is not None]
    if len(given) != 1:
        place.add("E002", f"got {' and '.join(given) or 'neither'}.", "It takes COMMAND or PROGRAM.")
    return read_section(ProcessSettings, place, entry, alias=alias)
