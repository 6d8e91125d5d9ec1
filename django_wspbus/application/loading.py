"""The WSGI application of a server: Django's or the project's own, with the applications in MOUNTS."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.utils.module_loading import import_string

from .. import conf
from ..conf.findings import Problem
from ..project.tracebacks import explain
from ..wspbus import Refusal
from .interfaces import Application, find_fault, unwrap
from .mounts import Mounts

if TYPE_CHECKING:
    from ..conf import ServerSettings


def load(settings: ServerSettings, static_files: bool | None = None) -> Application:
    """Import the application, its URLconf and the mounted applications. A `Refusal` says why an import fails.

    ``static_files``: the value of STATIC_FILES.

    Django imports the URLconf only at the first request. A worker imports it before, so that broken code
    never becomes ready.
    """
    try:
        wrong = problems(settings)
        if wrong:
            raise Refusal("\n".join(problem.line for problem in wrong))
        import_urlconf()
        application = load_application(settings.application)
        mounts = {prefix: load_dotted(path) for prefix, path in settings.mounts.items()}
    except Refusal:
        raise
    except Exception as error:  # the project's code may raise anything
        raise Refusal(f"its application does not load: {explain(error)}") from error
    if conf.serves_static_files(static_files):
        application = with_static_files(application)
    return Mounts(application, mounts) if mounts else application


def with_static_files(application: Application) -> Application:
    from django.contrib.staticfiles.handlers import StaticFilesHandler

    try:
        # It accepts any WSGI application, although its annotation asks for a WSGIHandler.
        return StaticFilesHandler(cast(Any, application))
    except ImproperlyConfigured as error:  # no STATIC_URL
        raise Refusal(f"its static files cannot be served: {error}") from error


def problems(settings: ServerSettings) -> list[Problem]:
    """Import the applications in APPLICATION and MOUNTS; return the problems with their names.

    An error that the project's own code raises during the import is not caught.
    """
    found = []
    named = {settings.path("MOUNTS", prefix): dotted for prefix, dotted in settings.mounts.items()}
    main = settings.application or conf.default_application()
    if main is not None:
        path = settings.path("APPLICATION") if settings.application else "WSGI_APPLICATION"
        named = {path: main, **named}
    for path, dotted in named.items():
        found += _problems_of(path, dotted)
    # The application in WSGI_APPLICATION is Django's, however it is wrapped.
    if not found and (settings.application is None or any(map(_is_djangos, named.values()))):
        found += allowed_hosts_problems()
    return found


def allowed_hosts_problems() -> list[Problem]:
    """Return the problems with ALLOWED_HOSTS. Call it after the middleware, which may set it, is loaded."""
    if conf.is_debug() or conf.allows_hosts():
        return []
    hosts = conf.allowed_hosts()
    reason = f"no entry of {hosts!r} is a host name" if hosts else "it is empty, and DEBUG is False"
    message = f"{reason}: Django would answer every request with 400."
    return [Problem("E019", "ALLOWED_HOSTS", message, 'It takes host names without ports, as "example.org".')]


def _is_djangos(dotted: str) -> bool:
    return isinstance(unwrap(load_dotted(dotted)), WSGIHandler)


def _problems_of(path: str, dotted: str) -> list[Problem]:
    try:
        application = load_dotted(dotted)
    except ImportError as error:
        module = dotted.rpartition(".")[0]
        if isinstance(error, ModuleNotFoundError):
            is_ours = f"{module}.".startswith(f"{error.name}.")
        else:
            is_ours = isinstance(error.__cause__, AttributeError)  # raised by import_string
        if not is_ours:
            raise
        return [not_imported(path, dotted, error)]
    fault = find_fault(application)
    if fault is None:
        return []
    message = f"{dotted} is not a WSGI application: {fault}."
    return [Problem("E006", path, message, 'It takes a WSGI application, as "shop.wsgi.application".')]


def not_imported(path: str, dotted: str, error: ImportError) -> Problem:
    return Problem("E005", path, f"{dotted!r} does not import: {error}.")


def load_application(path: str | None) -> Application:
    path = path or conf.default_application()
    # get_wsgi_application() would set up Django and its logging once more.
    return WSGIHandler() if path is None else load_dotted(path)


def load_dotted(path: str) -> Application:
    with enabled_loggers():
        application: Application = import_string(path)
    return application


@contextlib.contextmanager
def enabled_loggers() -> Iterator[None]:
    """Keep loggers enabled while a wsgi.py sets up Django and its logging.

    Otherwise that setup would disable existing loggers, such as gunicorn's, unless LOGGING names them or sets
    ``"disable_existing_loggers": False``.
    """
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    enabled = [logger for logger in loggers if not logger.disabled]
    try:
        yield
    finally:
        for logger in enabled:
            logger.disabled = False


def import_urlconf() -> None:
    if conf.root_urlconf() is not None:
        from django.urls import get_resolver

        _ = get_resolver().url_patterns  # also imports included URLconfs
