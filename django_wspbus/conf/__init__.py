"""The setting ``WSPBUS``, read once into typed objects. Nobody else reads the settings."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.signals import setting_changed

from .addresses import Address
from .findings import Problem
from .validation import DEFAULT_STOP_TIMEOUT, Reader

GUNICORN = "django_wspbus.servers.gunicorn.GunicornServer"
THREADED = "django_wspbus.servers.threaded.ThreadedServer"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """One entry of SERVERS."""

    alias: str
    backend: str
    bind: tuple[Address, ...]
    application: str | None
    mounts: Mapping[str, str]
    options: Mapping[str, Any]

    def path(self, *keys: str) -> str:
        """Return how the settings name this entry or a key of it."""
        return setting_path("SERVERS", self.alias, *keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginSettings:
    """One entry of PLUGINS."""

    backend: str
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Daemonize:
    """DAEMONIZE: where the output of a daemon goes; None: nowhere."""

    stdout: Path | None = None
    stderr: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Autoreload:
    """AUTORELOAD, where it is on."""

    extra_files: tuple[Path, ...] = ()
    extra_dirs: Mapping[Path, str] = field(default_factory=lambda: MappingProxyType({}))
    spare: bool = True
    preload: tuple[str, ...] = ()
    poll: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The setting WSPBUS, with every default filled in."""

    servers: Mapping[str, ServerSettings]
    autoreload: Autoreload | None = None
    signals: Mapping[str, str | None] = field(default_factory=dict)
    daemonize: Daemonize | None = None
    pidfile: Path | None = None
    user: str | int | None = None
    group: str | int | None = None
    umask: int | None = None
    plugins: tuple[PluginSettings, ...] = ()
    static_files: bool | None = None
    warmup: tuple[str, ...] = ()
    ready_timeout: float = 30
    drain_delay: float = 0
    stop_timeout: float = DEFAULT_STOP_TIMEOUT
    health: Address | None = None
    control: bool | Path = True


def setting_path(*keys: str | int) -> str:
    """Return the path of a key as in Python: ``WSPBUS["SERVERS"]["default"]``."""
    return "WSPBUS" + "".join(f'["{key}"]' if isinstance(key, str) else f"[{key}]" for key in keys)


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``base`` with ``overrides`` laid over it, dict by dict.

    What is no dict where one belongs stays, for it is an error to be found.
    """
    merged = dict(base)
    for key, value in overrides.items():
        inner = merged.get(key, {})
        if not isinstance(value, Mapping):
            merged[key] = value
        elif isinstance(inner, Mapping):
            merged[key] = merge(inner, value)
    return merged


def raw_settings() -> Any:
    """Return what the project wrote, with the default server if it names none."""
    raw = getattr(django_settings, "WSPBUS", {})
    if not isinstance(raw, Mapping) or raw.get("SERVERS"):
        return raw
    if "SERVERS" in raw:  # empty: an error, and to be seen
        return raw
    backend = THREADED if django_settings.DEBUG else GUNICORN
    return {**raw, "SERVERS": {"default": {"BACKEND": backend}}}


def read(overrides: Mapping[str, Any] | None = None) -> tuple[Settings | None, list[Problem]]:
    """Validate the settings; return them, None if they are wrong, and all that is wrong with them.

    ``overrides`` has the shape of WSPBUS, and is laid over it.
    """
    raw = raw_settings()
    if overrides and isinstance(raw, Mapping):
        raw = merge(raw, overrides)
    reader = Reader(raw, debug=bool(django_settings.DEBUG))
    values = reader.read()
    if values is not None and values.get("static_files") and not has_static_files():
        message = "django.contrib.staticfiles is not in INSTALLED_APPS, so nobody finds static files."
        reader.add("E017", setting_path("STATIC_FILES"), message, "Install the app, or leave this out.")
    if values is None or any(problem.is_error for problem in reader.problems):
        return None, reader.problems
    return _typed(values), reader.problems


def _typed(values: dict[str, Any]) -> Settings:
    values = copy.copy(values)
    values["servers"] = MappingProxyType(
        {
            alias: ServerSettings(
                alias=alias,
                **{**server, "mounts": _frozen(server["mounts"]), "options": _frozen(server["options"])},
            )
            for alias, server in values["servers"].items()
        }
    )
    values["plugins"] = tuple(
        PluginSettings(backend=plugin["backend"], options=_frozen(plugin["options"]))
        for plugin in values["plugins"]
    )
    if values["daemonize"] is not None:
        values["daemonize"] = Daemonize(**values["daemonize"])
    said = values["autoreload"]
    values["autoreload"] = None if said is False else _autoreload({} if said is True else said)
    values["signals"] = _frozen(values["signals"])
    return Settings(**values)


def _autoreload(values: Mapping[str, Any]) -> Autoreload:
    return Autoreload(
        extra_files=tuple(map(Path, values.get("EXTRA_FILES", ()))),
        extra_dirs=MappingProxyType(
            {Path(folder): glob for folder, glob in values.get("EXTRA_DIRS", {}).items()}
        ),
        spare=values.get("SPARE", True),
        preload=tuple(values.get("PRELOAD", ())),
        poll=values.get("POLL"),
    )


def _frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping))


@functools.cache
def problems() -> tuple[Problem, ...]:
    """Return what is wrong with the project's own settings."""
    return tuple(read()[1])


@functools.cache
def get() -> Settings:
    """Return the project's own settings; `ImproperlyConfigured` if they are wrong."""
    from django.core.exceptions import ImproperlyConfigured

    settings, found = read()
    if settings is None:
        raise ImproperlyConfigured("\n".join(problem.line for problem in found if problem.is_error))
    return settings


def default_application() -> str | None:
    """Return the path of the project's own WSGI application, None for Django's."""
    path: str | None = django_settings.WSGI_APPLICATION
    return path


def debug() -> bool:
    return bool(django_settings.DEBUG)


def root_urlconf() -> Any:
    return getattr(django_settings, "ROOT_URLCONF", None)


def is_debug() -> bool:
    return bool(django_settings.DEBUG)


def has_static_files() -> bool:
    """Whether django.contrib.staticfiles is installed, also by the path of an AppConfig."""
    return apps.is_installed("django.contrib.staticfiles")


def serves_static_files(asked: bool | None = None) -> bool:
    """Whether Django is to serve static files itself, for a value of STATIC_FILES; None: as DEBUG."""
    return (is_debug() if asked is None else asked) and has_static_files()


def settings_module() -> str | None:
    """Return the name of the settings module, None if settings were made by ``configure()``."""
    name = getattr(django_settings, "SETTINGS_MODULE", None)
    return name if isinstance(name, str) else None


def logging_names(logger: str) -> bool:
    """Whether the project's LOGGING speaks of a logger."""
    config = getattr(django_settings, "LOGGING", None) or {}
    return logger in config.get("loggers", {})


def allowed_hosts() -> list[Any]:
    return list(django_settings.ALLOWED_HOSTS)


def allows_hosts() -> bool:
    """Whether ALLOWED_HOSTS allows any host."""
    return "*" in allowed_hosts() or bool(_named_hosts())


def _named_hosts() -> list[str]:
    """Return the hosts that ALLOWED_HOSTS names: no patterns, and none that Django never matches."""
    from django.http.request import split_domain_port

    names = [entry.removeprefix(".") for entry in allowed_hosts() if isinstance(entry, str)]
    return [name for name in names if name and split_domain_port(name) == (name.lower(), "")]


def own_host() -> tuple[str, str, dict[str, str]]:
    """Return the host and the scheme of a request that the project answers, and the header that claims it.

    The header is one of a proxy, as a WSGI variable, and is there only if the project goes by it.
    """
    host = next(iter(_named_hosts()), "localhost")
    if not django_settings.SECURE_SSL_REDIRECT:
        return host, "http", {}
    header: Any = django_settings.SECURE_PROXY_SSL_HEADER or ()
    return host, "https", dict([header]) if len(header) == 2 else {}


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("WSPBUS", "DEBUG"):
        problems.cache_clear()
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_wspbus.conf")
