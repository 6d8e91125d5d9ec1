"""The warm spare: an interpreter that has imported what nobody edits, and waits to run the project.

It is to be as good as a new one, or it is not used: see `Spare` and `development.doubts`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Container, Iterable
from importlib.machinery import ModuleSpec
from types import FrameType
from typing import Any

from ..project import modules
from ..project.libraries import folders, is_library_file
from .doubts import signs

SETTINGS = "DJANGO_SETTINGS_MODULE"
TRAP = "django_wspbus_settings_are_not_to_be_read"


class Spare:
    """In the spare itself. ``order``: what `describe` has told, and the "unfit" modules of earlier ones."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.modules: list[tuple[str, str]] = order["modules"]
        self.changed: list[str] = order["changed"]
        self.signs: dict[str, list[str]] = order["signs"]
        self.path: list[str] = order["path"]
        self.unfit: list[str] = list(order["unfit"])
        self._signatures: dict[str, tuple[int, int] | None] = {}
        self._known = set(self.unfit)
        self.why: str | None = None
        """Why no interpreter that has imported these libraries before would do."""
        self._shadows: set[str] = set()

    def prepare(self) -> bool:
        """Import all; return whether this interpreter is still as good as a new one.

        If it is not, ``unfit`` names the modules that another one has to do without.
        """
        readers = {name for name, origin in self.modules if name in self._known and self._reads(origin)}
        trap = _Trap(readers)
        sys.meta_path.insert(0, trap)
        settings = os.environ.get(SETTINGS)
        os.environ[SETTINGS] = TRAP
        # Libraries in Rust (pydantic) report here that they cannot read the settings; the trap knows it.
        hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
        try:
            for name, origin in self.modules:
                if name not in self._known and name not in sys.modules:
                    self._import(name, origin, trap)
        finally:
            sys.unraisablehook = hook
            sys.meta_path.remove(trap)
            if settings is None:
                del os.environ[SETTINGS]
            else:
                os.environ[SETTINGS] = settings
        self._find_orphans()
        self._find_readers_of_environment()
        self._signatures = {file: _signature(file) for file in self._files()}
        self._shadows = self._find_shadows()
        is_news = set(self.unfit) != self._known
        if not is_news and self.why is None:
            self._compare_signs()
        return not is_news and self.why is None

    def is_fit(self) -> bool:
        """Whether nothing has changed since in what it has imported, nor come in its place."""
        is_same = all(_signature(file) == signature for file, signature in self._signatures.items())
        return is_same and self._find_shadows() == self._shadows

    def _compare_signs(self) -> None:
        here = signs()
        for what, there in self.signs.items():
            if more := [value for value in there if value not in here[what]]:
                self.why = f"the project {what}: {more[0]}"

    def _find_shadows(self) -> set[str]:
        """Return what in the project has the name of something imported from elsewhere."""
        names = {name.partition(".")[0] for name, _ in self.modules}
        found = set()
        for folder in self.path:
            if not is_library_file(folder):
                with contextlib.suppress(OSError):
                    found |= {name for name in os.listdir(folder) if name.partition(".")[0] in names}
        return found

    def _import(self, name: str, origin: str, trap: _Trap) -> None:
        before = _surroundings()
        trap.chain = []
        try:
            importlib.import_module(name)
        except BaseException as error:  # SystemExit, too: whatever it is, it does not happen to the project
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            chain = [name, *trap.chain, *_modules_of(frames)]
        else:
            is_as_it_was = self._is_the_same(name, origin) and _surroundings() == before
            chain = trap.chain or ([] if is_as_it_was else [name])
        for each in chain:
            self._note_unfit(each)
            _forget(each)  # whoever else imports it is unfit for that, too

    def _find_orphans(self) -> None:
        """Find the modules of packages that do not import: by themselves they do not either."""
        for name, _ in self.modules:
            parent = name.rpartition(".")[0]
            if name in sys.modules and parent and parent not in sys.modules:
                self._note_unfit(name)

    def _note_unfit(self, name: str) -> None:
        """Note a module, and all below it if it is a package: Python imports the package first."""
        below = (other for other, _ in self.modules if other.startswith(f"{name}."))
        self.unfit += [each for each in (name, *below) if each not in self.unfit]

    def _is_the_same(self, name: str, origin: str) -> bool:
        module = modules.find(name)
        return module is not None and module.file == origin

    def _find_readers_of_environment(self) -> None:
        """Find the modules that may have read what the project sets in the environment first."""
        for module in modules.loaded():
            if module.file and is_library_file(module.file) and self._reads(module.file):
                if module.name in self._known:  # it was there before all others
                    self.why = f"{module.name} may read what the project sets in the environment"
                self._note_unfit(module.name)

    def _reads(self, file: str) -> bool:
        """Whether a file has the name of a variable that the project sets, and may look for it."""
        if not self.changed:
            return False
        try:
            with open(file, "rb") as source:
                text = source.read()
        except OSError:  # built in, or gone
            return False
        quoted = (f"{mark}{name}{mark}".encode() for name in self.changed for mark in ("'", '"'))
        return (b"environ" in text or b"getenv" in text) and any(each in text for each in quoted)

    def _files(self) -> set[str]:
        return modules.files() | {*folders(), sys.executable}


class _Trap:
    """Notices that a module reads the settings as it is imported, whatever it does about their absence."""

    def __init__(self, forbidden: Container[str]) -> None:
        self.forbidden = forbidden
        """What is not to be imported: who does is as unfit."""
        self.chain: list[str] = []
        """The modules that were being imported, each by the one before."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == TRAP or name in self.forbidden:
            self.chain += _modules_of(frame for frame, _ in traceback.walk_stack(None))
        if name in self.forbidden:
            raise ModuleNotFoundError(f"{name} is not to be imported by a spare.", name=name)
        return None


def _modules_of(frames: Iterable[FrameType]) -> list[str]:
    """Return the modules whose own code some frames run: those that are being imported."""
    names = [frame.f_globals.get("__name__", "") for frame in frames if frame.f_code.co_name == "<module>"]
    return [name for name in names if name != "__main__"]


def _forget(name: str) -> None:
    """Have a module imported anew by the next who wants it."""
    sys.modules.pop(name, None)
    parent, _, child = name.rpartition(".")
    with contextlib.suppress(Exception):  # the package is not there, does not have it, or is no module
        delattr(sys.modules[parent], child)


def _surroundings() -> tuple[Any, ...]:
    """Return what a library has no business to change as it is imported."""
    return dict(os.environ), threading.active_count(), os.getcwd()


def _signature(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
