"""What a boot has done before or besides its imports, and so may have changed what they have found.

A spare has imported the same libraries without that: it is as good as a new interpreter only where there is
no sign of it.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from ..project import modules
from ..project.libraries import is_project_file
from ..successor.invocation import STATE

EXPECTED_CHANGES = {
    "DJANGO_SETTINGS_MODULE",
    "TZ",
    "DJANGO_COLORS",
    STATE,
    "LISTEN_PID",
}
"""Variables that every boot sets: Django sets TZ, this package the colours."""

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


MAIN = ("__main__", "__mp_main__")
"""The names of the program: the second is given by `multiprocessing`."""

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
        "path": [path for path in sys.path if isinstance(path, str)],  # imports ignore others
        "doubt": _doubt(changed),
    }


def library_modules() -> Iterator[tuple[str, str]]:
    # The interpreter lists a module when its import is complete: after those that it has imported.
    for module in reversed(list(modules.loaded())):
        if module.spec_name == module.name and module.file and not is_project_file(module.file):
            yield module.name, module.file


def changed_variables() -> list[str]:
    names = {*_ENVIRONMENT, *os.environ} - EXPECTED_CHANGES
    return sorted(name for name in names if _ENVIRONMENT.get(name) != os.environ.get(name))


def signs() -> dict[str, list[str]]:
    """Return what an import may go by, and somebody can have changed before: {what: [values]}.

    It is the same in a spare as in a process that has booted the project, or the project has done it.
    """
    logging: Any = sys.modules.get("logging")
    warnings: Any = sys.modules.get("warnings")
    names = {each.name: each.spec_name or each.name for each in modules.loaded() if each.name not in MAIN}
    return {
        "replaces the logger class": [] if logging is None else [repr(logging.getLoggerClass())],
        "adds a filter of warnings": sorted({repr(each) for each in warnings.filters}),
        "loads a module under another name": sorted(
            f"{name} is {own}" for name, own in names.items() if name != own
        ),
        "adds an import hook": sorted({type(each).__qualname__ for each in sys.meta_path}),
    }


def _doubt(changed: list[str]) -> str | None:
    native = [name for name in changed if name.startswith(NATIVE)]
    if native:
        return f"the project sets {native[0]}"
    for name, attribute, what in (
        ("gevent", "gevent.monkey", "saved"),
        ("eventlet", "eventlet.patcher", "already_patched"),
    ):
        if modules.attribute(attribute, what):
            return f"{name} replaces parts of other libraries"
    return _patch()


def _patch() -> str | None:
    """Return what the project has put in the place of something of a library, None if there is nothing."""
    is_of_project = functools.cache(is_project_file)
    for module in modules.loaded():
        if module.file is None or is_of_project(module.file):
            continue
        for attribute, value in list(module.namespace.items()):
            if (
                type(value) is FunctionType
                and is_of_project(value.__code__.co_filename)
                and not _imports(module.file, value)
            ):
                return f"the project replaces {module.name}.{attribute}"
    return None


def _imports(file: str, function: FunctionType) -> bool:
    """Whether the source of a library imports the package of a function itself.

    Then it is a library, too, in a folder that does not tell.
    """
    package = str(function.__module__).partition(".")[0]
    statement = re.compile(rf"^[ \t]*(?:from|import)[ \t]+{re.escape(package)}\b", re.MULTILINE)
    try:
        with open(file, encoding="utf-8", errors="replace") as source:
            return statement.search(source.read()) is not None
    except OSError:  # packed into an archive, or gone
        return True
