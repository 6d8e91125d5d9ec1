"""What a boot has done before or besides its imports, and so may have changed what they have found.

A spare has imported the same libraries without that: it is as good as a new interpreter only where there is
no sign of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from .libraries import is_project_file

EXPECTED_CHANGES = {
    "DJANGO_SETTINGS_MODULE",
    "TZ",
    "DJANGO_COLORS",
    "DJANGO_WSPBUS_LAUNCHED",
    "DJANGO_WSPBUS_INHERITED",
    "LISTEN_PID",
}
"""Variables that a boot sets whoever's it is: Django sets TZ, we the colours."""

NATIVE = (
    "OMP_",
    "OPENBLAS_",
    "MKL_",
    "NUMEXPR_",
    "BLIS_",
    "VECLIB_",
    "GRPC_",
    "CUDA_",
    "MALLOC_",
    "LD_",
    "PYTHON",
)
"""How variables begin that code other than Python's reads: in which library, nobody can tell."""


_ENVIRONMENT = dict(os.environ)


def describe() -> dict[str, Any]:
    """Return what a spare is to know of this process, which has booted the project.

    {"modules": [(name, file)] of libraries, those that import others first, "changed": [variables of the
    environment that the project has set], "signs": see `signs`, "path": where it imports from,
    "doubt": why there is to be no spare, None if there is to be one}
    """
    changed = changed_variables()
    return {
        "modules": list(library_modules()),
        "changed": changed,
        "signs": signs(),
        "path": list(sys.path),
        "doubt": _doubt(changed),
    }


def library_modules() -> Iterator[tuple[str, str]]:
    # The interpreter lists a module when its import is complete: after those that it has imported.
    for name, module in reversed(list(sys.modules.items())):
        spec = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None)
        if spec is not None and spec.name == name and isinstance(origin, str) and not is_project_file(origin):
            yield name, origin


def changed_variables() -> list[str]:
    names = {*_ENVIRONMENT, *os.environ} - EXPECTED_CHANGES
    return sorted(name for name in names if _ENVIRONMENT.get(name) != os.environ.get(name))


def signs() -> dict[str, list[str]]:
    """Return what an import may go by, and somebody can have changed before: {what: [values]}.

    It is the same in a spare as in a process that has booted the project, or the project has done it.
    """
    logging: Any = sys.modules.get("logging")
    warnings: Any = sys.modules.get("warnings")
    names = {
        name: getattr(getattr(module, "__spec__", None), "name", name)
        for name, module in list(sys.modules.items())
        if name != "__main__"
    }
    return {
        "a class of loggers": [] if logging is None else [repr(logging.getLoggerClass())],
        "a filter of warnings": sorted({repr(each) for each in warnings.filters}),
        "a module of another name": sorted(f"{name} is {own}" for name, own in names.items() if name != own),
        "a finder of modules": sorted({type(each).__qualname__ for each in sys.meta_path}),
    }


def _doubt(changed: list[str]) -> str | None:
    native = [name for name in changed if name.startswith(NATIVE)]
    if native:
        return f"the project sets {native[0]}"
    for name, attribute, what in (
        ("gevent", "gevent.monkey", "saved"),
        ("eventlet", "eventlet.patcher", "already_patched"),
    ):
        if getattr(sys.modules.get(attribute), what, None):
            return f"{name} has changed other libraries"
    return _patch()


def _patch() -> str | None:
    """Return what the project has put in the place of something of a library, None if there is nothing."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or is_project_file(file):
            continue
        for attribute, value in list(vars(module).items()):
            if type(value) is FunctionType and is_project_file(value.__code__.co_filename):
                return f"the project has changed {name}.{attribute}"
    return None
