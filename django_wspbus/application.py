"""The WSGI application that a server serves: Django's, the project's own, and what is mounted beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.core.wsgi import get_wsgi_application
from django.utils.module_loading import import_string

from . import conf

if TYPE_CHECKING:
    from .conf import ServerSettings

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class NotAnApplication(TypeError):
    """A dotted path leads to something that cannot be called."""


def load(settings: ServerSettings) -> Application:
    """Import the application, its URLconf and what is mounted; raises whatever importing them raises.

    Django imports the URLconf at the first request only; a server that has said that it is ready
    should have no such surprise left.
    """
    application = load_application(settings.application)
    mounts = {prefix: load_dotted(path) for prefix, path in settings.mounts.items()}
    import_urlconf()
    if conf.serves_static_files():
        from django.contrib.staticfiles.handlers import StaticFilesHandler

        application = StaticFilesHandler(application)
    return Mounts(application, mounts) if mounts else application


def load_application(path: str | None) -> Application:
    path = path or conf.default_application()
    return get_wsgi_application() if path is None else load_dotted(path)


def load_dotted(path: str) -> Application:
    application = import_string(path)
    if not callable(application):
        raise NotAnApplication(f"{path} is no WSGI application: {application!r} is not callable.")
    result: Application = application
    return result


def import_urlconf() -> None:
    if conf.root_urlconf() is not None:
        from django.urls import get_resolver

        _ = get_resolver().url_patterns  # imports those that are included, too


class Mounts:
    """Hands a request to the application mounted at the longest prefix of its path, else to the main one."""

    def __init__(self, application: Application, mounts: Mapping[str, Application]) -> None:
        self.application = application
        self.mounts = sorted(mounts.items(), key=lambda mount: len(mount[0]), reverse=True)

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
