"""The WSGI application that a server serves: Django's, the project's own, and what is mounted beside it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.utils.module_loading import import_string

from .. import conf
from ..conf.findings import Problem
from ..project.tracebacks import explain
from ..wspbus import Refusal
from .interfaces import find_fault, unwrap

if TYPE_CHECKING:
    from ..conf import ServerSettings

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def load(settings: ServerSettings, static_files: bool | None = None) -> Application:
    """Import the application, its URLconf and what is mounted; a `Refusal` says why that fails.

    ``static_files``: the value of STATIC_FILES.

    Django imports the URLconf at the first request only; a server that has said that it is ready
    should have no such surprise left.
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
    except Exception as error:  # the project's own code: anything may come
        raise Refusal(f"its application does not load: {explain(error)}") from error
    if conf.serves_static_files(static_files):
        application = with_static_files(application)
    return Mounts(application, mounts) if mounts else application


def with_static_files(application: Application) -> Application:
    from django.contrib.staticfiles.handlers import StaticFilesHandler

    try:
        # It asks no more of what it wraps than to be a WSGI application.
        return StaticFilesHandler(cast(Any, application))
    except ImproperlyConfigured as error:  # no STATIC_URL
        raise Refusal(f"its static files cannot be served: {error}") from error


def problems(settings: ServerSettings) -> list[Problem]:
    """Import what APPLICATION and MOUNTS name, and return what is wrong with the names.

    An error that the project's own code raises meanwhile is not caught.
    """
    found = []
    named = {settings.path("MOUNTS", prefix): dotted for prefix, dotted in settings.mounts.items()}
    main = settings.application or conf.default_application()
    if main is not None:
        path = settings.path("APPLICATION") if settings.application else "WSGI_APPLICATION"
        named = {path: main, **named}
    for path, dotted in named.items():
        found += _problems_of(path, dotted)
    # What WSGI_APPLICATION names is Django's own, however it is wrapped.
    if not found and (settings.application is None or any(map(_is_djangos, named.values()))):
        found += allowed_hosts_problems()
    return found


def allowed_hosts_problems() -> list[Problem]:
    """Return what is wrong with ALLOWED_HOSTS once the middleware, which may set it, is loaded."""
    if conf.is_debug() or conf.allows_hosts():
        return []
    hosts = conf.allowed_hosts()
    what = f"no entry of {hosts!r} is the name of a host" if hosts else "it is empty, and DEBUG is False"
    message = f"{what}: Django would answer every request with 400."
    return [
        Problem("E019", "ALLOWED_HOSTS", message, 'It takes names of hosts, as "example.org", without ports.')
    ]


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
            is_ours = isinstance(error.__cause__, AttributeError)  # as import_string puts it
        if not is_ours:
            raise
        return [not_imported(path, dotted, error)]
    fault = find_fault(application)
    if fault is None:
        return []
    message = f"{dotted} is no WSGI application: {fault}."
    return [Problem("E006", path, message, 'It takes a WSGI application, as "shop.wsgi.application".')]


def not_imported(path: str, dotted: str, error: ImportError) -> Problem:
    return Problem("E005", path, f"{dotted!r} does not import: {error}.")


def load_application(path: str | None) -> Application:
    path = path or conf.default_application()
    # Not get_wsgi_application(): it would set up Django once more, logging included.
    return WSGIHandler() if path is None else load_dotted(path)


def load_dotted(path: str) -> Application:
    with enabled_loggers():
        application: Application = import_string(path)
    return application


@contextlib.contextmanager
def enabled_loggers() -> Iterator[None]:
    """Keep the loggers that are enabled as they are, while a wsgi.py sets up Django and its logging.

    Those made before, gunicorn's among them, would be mute from then on, unless LOGGING names
    them or says ``"disable_existing_loggers": False``.
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

        _ = get_resolver().url_patterns  # imports those that are included, too


class Mounts:
    """Hands a request to the application mounted at the longest prefix of its path, else to the main one."""

    def __init__(self, application: Application, mounts: Mapping[str, Application]) -> None:
        self.application = application
        # As servers give paths: bytes in the disguise of latin-1 (PEP 3333).
        encoded = {prefix.encode().decode("latin-1"): mounted for prefix, mounted in mounts.items()}
        self.mounts = sorted(encoded.items(), key=lambda mount: len(mount[0]), reverse=True)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        for prefix, application in self.mounts:
            if path == prefix or path.startswith(prefix + "/"):
                moved = {
                    **environ,
                    "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix,
                    "PATH_INFO": path[len(prefix) :],
                }
                return application(moved, start_response)
        return self.application(environ, start_response)
