"""What is wrong with valid settings, in the code they name and on the machine they are used on."""

from __future__ import annotations

import grp
import inspect
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from django.utils.module_loading import import_string

from ..application import loading as application
from ..application.loading import not_imported
from ..conf import PluginSettings, ServerSettings, Settings, setting_path
from ..conf.findings import Problem
from ..conf.validation import check_writable
from ..process.bus import bus
from ..servers.base import Server
from ..successor.inheritance import Inheritance


def server_class(settings: ServerSettings) -> type[Server]:
    """Import the class of a server; ImportError or TypeError if there is none."""
    backend = import_string(settings.backend)
    if not (inspect.isclass(backend) and issubclass(backend, Server)):
        raise TypeError(
            f"{settings.backend} is no server: it must be a subclass of {Server.__module__}.Server."
        )
    return backend


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
    for index, plugin in enumerate(settings.plugins):
        yield from _check_plugin(setting_path("PLUGINS", index), plugin)


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


def check_machine(settings: Settings, held: Inheritance | None = None) -> Iterable[Problem]:
    """Check users, paths and files, but for what the site ``held`` has already."""
    is_running = held is not None
    held = held or Inheritance()
    yield from _check_identity("USER", settings.user)
    yield from _check_identity("GROUP", settings.group)
    if settings.pidfile is not None and str(settings.pidfile) != held.pidfile:
        yield from check_writable("E010", setting_path("PIDFILE"), settings.pidfile, replaces=True)
    if settings.daemonize is not None and not is_running:  # else its output is open
        for key, file in (("STDOUT", settings.daemonize.stdout), ("STDERR", settings.daemonize.stderr)):
            if file is not None:
                yield from check_writable("E011", setting_path("DAEMONIZE", key), file)
    for server in settings.servers.values():
        for address in server.bind:
            if address.kind == "unix" and str(address) not in held.addresses:
                yield from check_writable("E011", server.path("BIND"), Path(address.path), replaces=True)
        yield from server_class(server).check_machine(server)


def _check_identity(key: str, name: str | int | None) -> Iterable[Problem]:
    if name is None:
        return
    path = setting_path(key)
    own = os.geteuid() if key == "USER" else os.getegid()
    number = name
    if isinstance(name, str):
        try:
            number = pwd.getpwnam(name).pw_uid if key == "USER" else grp.getgrnam(name).gr_gid
        except KeyError:
            yield Problem("E009", path, f"there is no {key.lower()} {name!r} on this machine.")
            return
    if os.geteuid() != 0 and number != own:
        yield Problem("E009", path, f"only root may become {name!r}.", "Start it as root, or as that user.")


def check_applications(settings: Settings) -> Iterable[Problem]:
    """Import every application, as its server would. An error in the project's own code is not caught."""
    for server in settings.servers.values():
        yield from application.problems(server)
    application.import_urlconf()
