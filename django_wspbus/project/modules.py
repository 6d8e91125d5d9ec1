"""The loaded modules, read without running their code.

``sys.modules`` may hold any object: None, a proxy of a deleted object, a lazy module that the first access
loads.
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
    """Its key, which may differ from the module's own name."""
    spec_name: str | None
    """The name under which it was imported; None if it was not imported."""
    file: str | None
    """The path of its code, from ``__file__`` or else from its spec."""
    namespace: Mapping[str, Any]


def loaded() -> Iterator[Loaded]:
    """Yield the readable modules, in the order of ``sys.modules``."""
    for name in list(sys.modules):
        if (module := find(name)) is not None:
            yield module


def find(name: str) -> Loaded | None:
    """Return a loaded module; None if no module has that name, or if it cannot be read."""
    try:
        # getattr() would load lazy modules, and may raise anything.
        namespace: Mapping[str, Any] = object.__getattribute__(sys.modules.get(name), "__dict__")
        spec = namespace.get("__spec__")
        file = namespace.get("__file__") or (spec.origin if spec is not None and spec.has_location else None)
        spec_name = None if spec is None else str(spec.name)
        return Loaded(str(name), spec_name, None if file is None else _path(file), namespace)
    except Exception:
        return None


def _path(file: Any) -> str | None:
    """Return a path as a string; None if it holds a NUL, which no file's path does."""
    path = os.fsdecode(file)
    return None if b"\0" in os.fsencode(path) else path


def files() -> set[str]:
    """Return the files of all loaded modules."""
    return {module.file for module in loaded() if module.file is not None}


def attribute(name: str, attribute: str) -> Any:
    """Return an attribute of a loaded module; None if the module or the attribute is missing."""
    with contextlib.suppress(Exception):
        module = find(name)
        return None if module is None else module.namespace.get(attribute)
    return None
