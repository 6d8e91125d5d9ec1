"""Whose a file is: code that the developer edits, or that of a library."""

from __future__ import annotations

import os
import site
import sys
import sysconfig

_PATHS = sysconfig.get_paths()
STANDARD = tuple({_PATHS["stdlib"], _PATHS["platstdlib"]})
LIBRARIES = tuple({_PATHS["purelib"], _PATHS["platlib"], *site.getsitepackages(), site.getusersitepackages()})


def is_library_file(file: str) -> bool:
    return file.startswith(LIBRARIES) or (file.startswith(STANDARD) and not _is_below_site(file))


def _is_below_site(file: str) -> bool:
    return f"{os.sep}site-packages{os.sep}" in file or f"{os.sep}dist-packages{os.sep}" in file


def is_project_file(file: str) -> bool:
    """Whether a file is code that somebody edits: not of a library, the standard one or this package."""
    return not file.startswith("<") and not is_library_file(file) and not file.startswith(_HERE)


def project_files() -> list[str]:
    """Return the files of the modules that are loaded, but for those of libraries."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return sorted(file for file in files if isinstance(file, str) and is_project_file(file))


_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
