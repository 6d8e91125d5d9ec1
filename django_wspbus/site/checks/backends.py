"""Checks of the code that WSPBUS names: servers, plugins, applications."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from django.utils.module_loading import import_string

from ...application import loading
from ...application.loading import not_imported
from ...conf import PluginSettings, ServerSettings, Settings, setting_path
from ...conf.findings import Problem
from ...fleet.engines import check_fleet
from ...process.bus import bus
from ...servers.base import Server, server_class
from .programs import check_commands


def check_backends(settings: Settings) -> Iterable[Problem]:
    """Check what the settings name besides the application: the classes, and their options."""
    for server in settings.servers.values():
        path = server.path("BACKEND")
        try:
            backend = server_class(server)
        except ImportError as error:
            yield not_imported(path, server.backend, error)
        except TypeError as error:
            yield Problem("E014", path, str(error))
        else:
            yield from backend.check_options(server)
            yield from _check_replacement(backend, server)
    for index, plugin in enumerate(settings.plugins):
        yield from _check_plugin(setting_path("PLUGINS", index), plugin)
    yield from check_commands(settings.processes)
    yield from check_fleet(settings.fleet)


def _check_replacement(backend: type[Server], server: ServerSettings) -> Iterable[Problem]:
    """Find the keys that replace workers, where the server does not do that."""
    if backend.replaces_workers:
        return
    where = "in the site process" if backend.in_process else "without single workers that could be replaced"
    for key, is_set in (
        ("REQUEST_TIMEOUT", server.request_timeout is not None),
        ("RECYCLE", server.recycle.is_active),
    ):
        if is_set:
            message = f"{backend.__name__} serves {where}."
            yield Problem("E020", server.path(key), message, "Leave the key out, or serve with gunicorn.")


def _check_plugin(path: str, settings: PluginSettings) -> Iterable[Problem]:
    backend = settings.backend
    try:
        made = import_string(backend)
    except ImportError as error:
        yield not_imported(f'{path}["BACKEND"]', backend, error)
        return
    if not callable(made) or not (inspect.isfunction(made) or hasattr(made, "subscribe")):
        message = f"{backend} is no plugin: it must have subscribe() and unsubscribe()."
        yield Problem("E014", f'{path}["BACKEND"]', message, "django_wspbus.Plugin is a base for one.")
        return
    try:
        inspect.signature(made).bind(bus, **settings.options)
        found = made(bus, **settings.options).check() if hasattr(made, "check") else ()
    except (TypeError, ValueError) as error:
        yield Problem("E012", f'{path}["OPTIONS"]', f"{backend} does not take them: {error}.")
        return
    for message in found:
        yield Problem(str(message.id), path, message.msg, message.hint, level=message.level)


def check_applications(settings: Settings) -> Iterable[Problem]:
    """Import every application, as its server would. An error in the project's own code is not caught."""
    for server in settings.servers.values():
        yield from loading.problems(server)
    loading.import_urlconf()
