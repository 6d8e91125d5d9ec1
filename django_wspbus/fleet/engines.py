"""The engine that FLEET names, and the checks of it."""

from __future__ import annotations

from collections.abc import Iterable

from django.utils.module_loading import import_string

from ..conf import FleetSettings
from ..conf.findings import Problem
from .base import Denied, Engine, Unavailable
from .local import LocalEngine

LIBRARIES = {"redis": "redis", "psycopg": "postgres"}
"""The libraries of our engines, and the extras that install them."""


def make_engine(settings: FleetSettings | None) -> Engine:
    """Make the engine of FLEET, or the one in memory without it. It connects with its first call."""
    if settings is None:
        return LocalEngine()
    return engine_class(settings)(settings.name, **settings.options)


def engine_class(settings: FleetSettings) -> type[Engine]:
    """Import the class of an engine; ImportError or TypeError if there is none."""
    backend = import_string(settings.backend)
    if not (isinstance(backend, type) and issubclass(backend, Engine)):
        raise TypeError(
            f"{settings.backend} is no engine: it must be a subclass of {Engine.__module__}.Engine."
        )
    if missing := sorted(backend.__abstractmethods__):
        raise TypeError(f"{settings.backend} is no engine: it lacks {', '.join(missing)}.")
    return backend


def check_fleet(settings: FleetSettings | None) -> Iterable[Problem]:
    """Check the class that FLEET names, and its options, without a connection."""
    if settings is None:
        return
    path = settings.path("BACKEND")
    try:
        backend = engine_class(settings)
    except ModuleNotFoundError as error:
        yield _not_found(path, settings.backend, error)
    except ImportError as error:
        yield Problem("E005", path, f"{settings.backend!r} does not import: {error}.")
    except TypeError as error:
        yield Problem("E014", path, str(error))
    else:
        yield from backend.check_options(settings.path("OPTIONS"), settings.options)


def _not_found(path: str, backend: str, error: ModuleNotFoundError) -> Problem:
    extra = LIBRARIES.get(error.name or "")
    if extra is None:
        return Problem("E005", path, f"{backend!r} does not import: {error}.")
    return Problem(
        "E022",
        path,
        f"{backend} needs the library {error.name}, which is not installed.",
        f'Install it: pip install "django-wspbus[{extra}]"',
    )


def check_engine(settings: FleetSettings | None) -> Iterable[Problem]:
    """Check the engine itself, over a connection. One that is away is a warning, as the site serves on."""
    if settings is None:
        return
    engine = make_engine(settings)
    try:
        engine.connect()
        yield from engine.check(settings.path())
    except Denied as error:
        yield Problem("E025", settings.path(), f"the engine of the fleet refuses this site. {error}")
    except Unavailable as error:
        yield Problem(
            "W003",
            settings.path(),
            f"the engine of the fleet is unavailable. {error}",
            "The site serves without it, and connects as soon as the engine answers.",
        )
    finally:
        engine.close()
