"""The warm spare: an interpreter that has imported libraries, and waits to run the project.

It imports modules of the standard library, of Django and of Django's dependencies, as far as the site before
it had loaded them and they neither read the settings nor define models; and what PRELOAD names. It imports no
file of the project.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from typing import Any

from ..process.messages import Message
from ..project import libraries, modules
from .launch import Libraries

PACKAGES = {*sys.stdlib_module_names, "django", "asgiref", "sqlparse", "django_wspbus"}
"""The packages whose modules a spare imports."""


def describe(preload: Sequence[str]) -> Libraries:
    """Return the libraries of this process, which has booted the project."""
    # The interpreter lists a module once its import is complete: after those that it imports.
    files = {each.name: each.file for each in reversed(list(modules.loaded())) if each.spec_name == each.name}
    return Libraries(
        {name: file for name, file in files.items() if file and _is_preloaded(name, file)},
        preload,
        _find_obstacle(),
    )


def _is_preloaded(name: str, file: str) -> bool:
    return name.partition(".")[0] in PACKAGES and not libraries.is_project_file(file)


def _find_obstacle() -> str | None:
    if logging.getLoggerClass() is not logging.Logger:
        return "the project replaces the logger class (logging.setLoggerClass)"
    for module, attribute in (("gevent.monkey", "saved"), ("eventlet.patcher", "already_patched")):
        if modules.attribute(module, attribute):
            return f"{module.partition('.')[0]} has patched the standard library"
    return None


class Spare:
    """The process that is the spare. ``modules`` and ``preload``: see `Libraries`."""

    def __init__(self, modules: dict[str, str], preload: Sequence[str]) -> None:
        self._modules = modules
        self._preload = preload
        self._before = set(sys.modules)
        self._times: dict[str, int | None] = {}

    def prepare(self) -> Message:
        """Import the libraries; return {"prepared": True} if this interpreter is as good as a new one.

        Return {"obstacle": the reason} if no spare would be, and {"left_out": a name of PRELOAD, "why": the
        reason} if one without that would be.
        """
        folders = _times(libraries.folders())
        with _without_settings() as readers:
            report = self._import_modules(readers) or self._import_preload(readers)
        self._times = _times(modules.files()) | folders
        return report or {"prepared": True}

    def is_fit(self) -> bool:
        """Return whether a new interpreter would still import the same files."""
        return _times(self._times) == self._times and not self._is_shadowed()

    def _import_modules(self, readers: list[str]) -> Message:
        for name, file in self._modules.items():
            readers.clear()
            try:
                importlib.import_module(name)
            except Exception as error:
                if not readers:
                    return {"obstacle": f"{name} cannot be imported before the project: {error!r}"}
                continue  # it reads the settings, or defines a model, and so is not here now
            if readers:
                return {"obstacle": f"{name} copes with settings that are not there"}
            found = modules.find(name)
            if found is None or found.file != file:
                return {"obstacle": f"the project has imported {name} from another file, {file}"}
        own = self._find_own()
        return {} if own is None else {"obstacle": f"{own} hides a module of a library"}

    def _import_preload(self, readers: list[str]) -> Message:
        for name in self._preload:
            why = None
            readers.clear()
            try:
                importlib.import_module(name)
            except BaseException as error:  # SystemExit, too
                why = f"its import fails: {error!r}"
            if readers:
                why = "it reads the settings when it is imported"
            elif (own := self._find_own()) is not None:
                why = f"it imports {own}, a file of the project"
            if why is not None:
                return {"left_out": name, "why": why}
        return {}

    def _find_own(self) -> str | None:
        """Return a file of the project that has been imported; None if there is none."""
        loaded = (each.file for each in modules.loaded() if each.name not in self._before)
        return next((file for file in loaded if file and libraries.is_project_file(file)), None)

    def _is_shadowed(self) -> bool:
        """Return whether the project has got a module with the name of one that is imported here."""
        importlib.invalidate_caches()
        folders = [each for each in sys.path if isinstance(each, str) and not libraries.is_library_file(each)]
        names = {name for name in set(sys.modules) - self._before if "." not in name}
        files = (spec.origin for name in names if (spec := PathFinder.find_spec(name, folders)))
        return any(file and libraries.is_project_file(file) for file in files)


@contextlib.contextmanager
def _without_settings() -> Iterator[list[str]]:
    """Refuse to load or configure Django's settings in this block; each attempt is added to the list.

    A module that copes with their absence would see other values than in a new interpreter.
    """
    from django.core.exceptions import ImproperlyConfigured

    django_conf: Any = importlib.import_module("django.conf")
    kept = {name: vars(django_conf.LazySettings)[name] for name in ("_setup", "configure")}
    variable = os.environ.pop(django_conf.ENVIRONMENT_VARIABLE, None)
    attempts: list[str] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        attempts.append("settings")
        raise ImproperlyConfigured("The warm spare has no settings.")

    try:
        for name in kept:
            setattr(django_conf.LazySettings, name, refuse)
        yield attempts
    finally:
        for name, function in kept.items():
            setattr(django_conf.LazySettings, name, function)
        if variable is not None:
            os.environ[django_conf.ENVIRONMENT_VARIABLE] = variable


def _times(paths: Iterable[str]) -> dict[str, int | None]:
    """Return when each file or folder was last changed, in nanoseconds; None if it is not there."""
    return {path: _time(path) for path in paths}


def _time(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
