"""Whose a file is: code that the developer edits, or that of a library."""

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

# Also those of another environment, which PYTHONPATH or a .pth file adds; and what is packed into one file.
_INSTALLED = re.compile(r"[/\\](?:site-packages|dist-packages|[^/\\]+\.(?:egg|whl|zip))(?:[/\\]|$)")
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def folders() -> tuple[str, ...]:
    """Return the folders from which libraries are imported, but for those of the standard library."""
    return (*LIBRARIES, *_installed_into(tuple(path for path in sys.path if isinstance(path, str)), _roots()))


def is_library_file(file: str) -> bool:
    """Whether a file belongs to a library; a folder belongs to it, too."""
    if _INSTALLED.search(file) or _is_below(file, STANDARD):
        return True
    return _is_below(file, folders())


def is_project_file(file: str) -> bool:
    """Whether a file is code that the developer edits: not of a library, the standard one or this package."""
    return not file.startswith(("<", _HERE)) and not is_library_file(file)


def project_files() -> list[str]:
    """Return the files of the modules that are loaded, but for those of libraries."""
    return sorted(file for file in modules.files() if is_project_file(file))


def _is_below(file: str, folders: tuple[str, ...]) -> bool:
    return file in folders or file.startswith(tuple(folder + os.sep for folder in folders))


def _roots() -> frozenset[str]:
    """Return the folders of the project itself: that of its script, and the working directory."""
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
        # An *.egg-info may also be that of a checkout which is being edited.
        return any(name.endswith(".dist-info") for name in os.listdir(folder))
    except (OSError, ValueError):  # not there, a file, or no path at all
        return False
