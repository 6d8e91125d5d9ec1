"""Tell the project's files, which the developer edits, from those of libraries."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import site
import sys
import sysconfig

from . import modules

_PATHS = sysconfig.get_paths()
STANDARD = tuple({_PATHS["stdlib"], _PATHS["platstdlib"]})
LIBRARIES = tuple({_PATHS["purelib"], _PATHS["platlib"], *site.getsitepackages(), site.getusersitepackages()})

# Another environment's folders, which PYTHONPATH or a .pth file adds, and archives hold libraries as well.
_INSTALLED = re.compile(r"[/\\](?:site-packages|dist-packages|[^/\\]+\.(?:egg|whl|zip))(?:[/\\]|$)")
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""The folder of this package."""


def folders() -> tuple[str, ...]:
    """Return the folders of installed libraries, without the standard library."""
    return (*LIBRARIES, *_installed_into(tuple(path for path in sys.path if isinstance(path, str)), _roots()))


def is_library_file(file: str) -> bool:
    """Return whether a file belongs to a library. The path may also be that of a folder."""
    if _INSTALLED.search(file) or _is_below(file, STANDARD):
        return True
    return _is_below(file, folders())


def is_project_file(file: str) -> bool:
    """Return whether a file belongs to the project: not to a library, the standard one or this package."""
    return not file.startswith(("<", PACKAGE)) and not is_library_file(file)


def project_files() -> list[str]:
    """Return the files of the project's loaded modules."""
    return sorted(file for file in modules.files() if is_project_file(file))


def _is_below(file: str, folders: tuple[str, ...]) -> bool:
    return file in folders or file.startswith(tuple(folder + os.sep for folder in folders))


def _roots() -> frozenset[str]:
    """Return the folders of the project itself: the script's folder and the working directory."""
    roots = {os.path.dirname(os.path.realpath(sys.argv[0] if sys.argv else ""))}
    with contextlib.suppress(OSError):  # deleted
        roots.add(os.getcwd())
    return frozenset(roots)


@functools.lru_cache(maxsize=4)
def _installed_into(path: tuple[str, ...], roots: frozenset[str]) -> tuple[str, ...]:
    """Return the folders of ``sys.path`` into which pip has installed libraries, as ``pip --target`` does."""
    return tuple(
        folder
        for folder in dict.fromkeys(os.path.abspath(each) for each in path if each)
        if os.path.realpath(folder) not in roots and _holds_distributions(folder)
    )


def _holds_distributions(folder: str) -> bool:
    try:
        # *.egg-info does not count, because a checkout that the developer edits may hold one.
        return any(name.endswith(".dist-info") for name in os.listdir(folder))
    except (OSError, ValueError):  # missing, a file, or an invalid path
        return False
