"""The warm spare: an interpreter that has imported what nobody edits, and waits to run the project.

It is to be as good as a new one, or it is not used: see `describe` and `Spare` for what makes it unfit.
"""

from __future__ import annotations

import importlib
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import FrameType
from typing import Any

_PATHS = sysconfig.get_paths()
STANDARD = tuple({_PATHS["stdlib"], _PATHS["platstdlib"]})
LIBRARIES = tuple({_PATHS["purelib"], _PATHS["platlib"], *site.getsitepackages(), site.getusersitepackages()})
SETTINGS = "DJANGO_SETTINGS_MODULE"
TRAP = "django_wspbus_settings_are_not_to_be_read"

# What depends on the project's settings, and what is started by the project's command.
NEVER = ("django.contrib", __package__)

EXPECTED_CHANGES = {
    SETTINGS,
    "TZ",
    "DJANGO_COLORS",
    "DJANGO_WSPBUS_LAUNCHED",
    "DJANGO_WSPBUS_INHERITED",
    "LISTEN_PID",
}
"""Variables that a boot sets whoever's it is: Django sets TZ, we the colours."""

PATCHERS = ("gevent", "eventlet")
"""Libraries that change others as they are imported."""


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
_ENVIRONMENT = dict(os.environ)
_META_PATH = list(map(repr, sys.meta_path))


def describe() -> dict[str, Any]:
    """Return what a spare is to know: the modules of libraries here, those that import others first.

    {"modules": [(name, file)], "changed": [variables of the environment that the project has set],
    "doubt": why there is to be no spare, None if there is to be one}
    """
    modules = []
    # The interpreter lists a module when its import is complete: after those that it has imported.
    for name, module in reversed(list(sys.modules.items())):
        spec = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None)
        if spec is None or spec.name != name or not isinstance(origin, str) or not is_library_file(origin):
            continue
        if not any(name == never or name.startswith(f"{never}.") for never in NEVER):
            modules.append((name, origin))
    before = {key: value for key, value in _ENVIRONMENT.items() if key not in EXPECTED_CHANGES}
    after = {key: value for key, value in os.environ.items() if key not in EXPECTED_CHANGES}
    changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    doubt = None
    if patchers := [name for name in PATCHERS if name in sys.modules]:
        doubt = f"{patchers[0]} changes other libraries"
    return {"modules": modules, "changed": changed, "doubt": doubt}


class Spare:
    """In the spare itself. ``order``: what `describe` has told, and the "unfit" modules of earlier ones."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.modules: list[tuple[str, str]] = order["modules"]
        self.changed: list[str] = order["changed"]
        self.unfit: list[str] = list(order["unfit"])
        self._signatures: dict[str, tuple[int, int] | None] = {}
        self._known = set(self.unfit)

    def prepare(self) -> bool:
        """Import all; return whether this interpreter is still as good as a new one.

        If it is not, ``unfit`` names the modules that another one has to do without.
        """
        before = dict(os.environ)
        threads = threading.active_count()
        directory = os.getcwd()
        trap = _Trap(self._known, self._note_unfit)
        sys.meta_path.insert(0, trap)
        os.environ[SETTINGS] = TRAP
        try:
            for name, origin in self.modules:
                if name not in self._known and name not in sys.modules:
                    self._import(name)
                    if not self._is_the_same(name, origin):
                        self._note_unfit(name)
        finally:
            sys.meta_path.remove(trap)
            os.environ.pop(SETTINGS)
            if SETTINGS in before:
                os.environ[SETTINGS] = before[SETTINGS]
        self._find_readers_of_environment()
        self._signatures = {file: _signature(file) for file in self._files()}
        is_unmoved = (dict(os.environ), threading.active_count(), os.getcwd()) == (before, threads, directory)
        is_clean = set(self.unfit) == self._known and self._known.isdisjoint(sys.modules)
        return is_unmoved and is_clean

    def is_fit(self) -> bool:
        """Whether nothing has changed since in what it has imported."""
        return all(_signature(file) == signature for file, signature in self._signatures.items())

    def _import(self, name: str) -> None:
        try:
            importlib.import_module(name)
        except BaseException:  # SystemExit, too: whatever it is, it does not happen to the project
            self._note_unfit(name)

    def _note_unfit(self, name: str) -> None:
        if name not in self.unfit:
            self.unfit.append(name)

    def _is_the_same(self, name: str, origin: str) -> bool:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        return getattr(spec, "origin", None) == origin

    def _find_readers_of_environment(self) -> None:
        """Find the modules that may have read what the project sets in the environment first."""
        if not self.changed:
            return
        quoted = [f"{mark}{name}{mark}".encode() for name in self.changed for mark in ("'", '"')]
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name in self._known or not isinstance(file, str) or not is_library_file(file):
                continue
            with open(file, "rb") as source:
                text = source.read()
            if (b"environ" in text or b"getenv" in text) and any(each in text for each in quoted):
                self._note_unfit(name)

    def _files(self) -> set[str]:
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        return {file for file in files if isinstance(file, str)} | {*LIBRARIES, sys.executable}


class _Trap:
    """Notices that somebody reads the settings, or imports an unfit module, whatever he does about it.

    ``note(name)`` is called for every module that is being imported just then.
    """

    def __init__(self, unfit: set[str], note: Callable[[str], None]) -> None:
        self.unfit = unfit
        self.note = note

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == TRAP or name in self.unfit:
            frame: FrameType | None = sys._getframe()
            while frame is not None:
                if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
                    self.note(frame.f_globals["__name__"])
                frame = frame.f_back
        if name in self.unfit:  # and not loaded: the next who imports it is to be noticed as well
            raise ModuleNotFoundError(f"{name} is not to be imported here.", name=name)
        return None


def _signature(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
