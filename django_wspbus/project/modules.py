"""The modules that are loaded, read without running any code of theirs.

``sys.modules`` takes any object: None, a proxy of what is gone, a lazy module that the first access loads.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Loaded:
    """One entry of ``sys.modules``."""

    name: str
    """Its key, which need not be the name that the module has."""
    spec_name: str | None
    """The name under which it was imported; None if it was not imported."""
    file: str | None
    """Where its code is, as ``__file__`` has it, or else its spec."""
    namespace: Mapping[str, Any]


def loaded() -> Iterator[Loaded]:
    """Yield the modules that can be read, in the order in which their imports were complete."""
    for name in list(sys.modules):
        if (module := find(name)) is not None:
            yield module


def find(name: str) -> Loaded | None:
    """Return a module that is loaded; None if there is none of that name, or none that can be read."""
    try:
        # Not getattr(): it wakes lazy modules, and may raise anything.
        namespace: Mapping[str, Any] = object.__getattribute__(sys.modules.get(name), "__dict__")
        spec = namespace.get("__spec__")
        file = namespace.get("__file__") or (spec.origin if spec is not None and spec.has_location else None)
        spec_name = None if spec is None else str(spec.name)
        return Loaded(str(name), spec_name, None if file is None else _path(file), namespace)
    except Exception:
        return None


def _path(file: Any) -> str | None:
    """Return a path as a string; None if no file can have it, as with a NUL or half a surrogate pair."""
    path = os.fsdecode(file)
    return None if b"\0" in os.fsencode(path) else path


def files() -> set[str]:
    """Return the files of all modules that are loaded."""
    return {module.file for module in loaded() if module.file is not None}


def attribute(name: str, attribute: str) -> Any:
    """Return what a module has under a name; None if either is not there."""
    with contextlib.suppress(Exception):
        module = find(name)
        return None if module is None else module.namespace.get(attribute)
    return None
