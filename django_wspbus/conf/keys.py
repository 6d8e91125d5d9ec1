"""The machinery of the schema: a dataclass is a table of keys, and each field says how its key is read."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from .addresses import Address
from .findings import Place

T = TypeVar("T")


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING: Any = _Missing()
"""The value of a key that is left out and has no default."""


class Option(NamedTuple):
    """An option of ``runbus`` that overrides a key."""

    name: str
    help: str
    metavar: str | None = None
    sets: Any = MISSING
    """The value that the option sets; without it, the option takes a value."""
    type: Callable[[str], Any] = str
    is_repeatable: bool = False
    within: str | None = None
    """The entry that the option overrides, where the key is a dict."""

    @property
    def destination(self) -> str:
        """The name under which `argparse` stores the option."""
        return self.name.lstrip("-").replace("-", "_")


class Key(NamedTuple):
    """One key of WSPBUS."""

    name: str
    field: str
    read: Callable[[Place, Any], Any]
    """Returns the typed value of a raw one, and adds each mistake to the findings of the place."""
    write: Callable[[Any], Any]
    """Returns the raw value of a typed one."""
    default: Any
    """The raw value that stands for a key that is left out; MISSING: the key is required."""
    doc: str
    options: tuple[Option, ...]


def key(
    read: Callable[[Place, Any], Any],
    default: Any = MISSING,
    *,
    doc: str,
    write: Callable[[Any], Any] | None = None,
    options: tuple[Option, ...] = (),
) -> Any:
    """Make a field of a section, a dataclass: its name in capitals is that of the key."""
    metadata = {"read": read, "write": write or plain, "default": default, "doc": doc, "options": options}
    if default is MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default_factory=lambda: read(Place(), default), metadata=metadata)


def keys_of(section: Any) -> list[Key]:
    """Return the keys of a section in the order of the documentation."""
    return [
        Key(name=field.name.upper(), field=field.name, **field.metadata)
        for field in dataclasses.fields(section)
        if field.metadata
    ]


def read_section(section: type[T], place: Place, raw: Mapping[Any, Any], **others: Any) -> T:
    """Read a dict into a section; ``others``: its fields that are not keys."""
    keys = keys_of(section)
    check_keys(place, raw, [key.name for key in keys])
    values = {
        key.field: key.read(place.at(key.name), raw.get(key.name, MISSING))
        for key in keys
        if key.name in raw or key.default is MISSING
    }
    return section(**values, **others)


def check_keys(place: Place, raw: Mapping[Any, Any], known: Iterable[str]) -> None:
    """Find the keys that are not known."""
    known = list(known)
    for name in raw:
        if name not in known:
            near = difflib.get_close_matches(str(name).upper(), known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}."
            place.at(name).add("E001", f"there is no key {name!r}.", hint)


def plain(value: Any) -> Any:
    """Return a typed value in the form that WSPBUS takes, of the types that Python can print."""
    if dataclasses.is_dataclass(value) and not isinstance(value, Address):
        return {key.name: key.write(getattr(value, key.field)) for key in keys_of(value)}
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if isinstance(value, Mapping):
        return {plain(name): plain(each) for name, each in value.items()}
    return list(map(plain, value)) if isinstance(value, tuple) else value
