"""The settings of the project besides WSPBUS. Only this folder reads the project's settings."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.apps import apps
from django.conf import settings


def is_debug() -> bool:
    return bool(settings.DEBUG)


def settings_module() -> str | None:
    """Return the name of the settings module, None if settings were made by ``configure()``."""
    name = getattr(settings, "SETTINGS_MODULE", None)
    return name if isinstance(name, str) else None


def default_application() -> str | None:
    """Return the path of the project's own WSGI application, None for Django's."""
    path: str | None = settings.WSGI_APPLICATION
    return path


def root_urlconf() -> Any:
    return getattr(settings, "ROOT_URLCONF", None)


def logging_names(logger: str) -> bool:
    """Return whether the project's LOGGING names a logger."""
    config = getattr(settings, "LOGGING", None) or {}
    return logger in config.get("loggers", {})


def app_folders() -> list[str]:
    """Return the folders of the apps, and that of the settings module."""
    module = sys.modules.get(settings_module() or "")
    file = getattr(module, "__file__", None)
    return [
        *(os.path.dirname(each) for each in [file] if each),
        *(app.path for app in apps.get_app_configs()),
    ]


# Static files


def has_static_files() -> bool:
    """Return whether django.contrib.staticfiles is installed, also by the path of an AppConfig."""
    return apps.is_installed("django.contrib.staticfiles")


def serves_static_files(asked: bool | None = None) -> bool:
    """Return whether Django serves static files itself, for a value of STATIC_FILES; None: as DEBUG."""
    return (is_debug() if asked is None else asked) and has_static_files()


# Hosts


def allowed_hosts() -> list[Any]:
    return list(settings.ALLOWED_HOSTS)


def allows_hosts() -> bool:
    """Return whether ALLOWED_HOSTS allows any host."""
    return "*" in allowed_hosts() or bool(_named_hosts())


def _named_hosts() -> list[str]:
    """Return the hosts that ALLOWED_HOSTS names: no patterns, and none that Django never matches."""
    from django.http.request import split_domain_port

    names = [entry.removeprefix(".") for entry in allowed_hosts() if isinstance(entry, str)]
    return [name for name in names if name and split_domain_port(name) == (name.lower(), "")]


def own_host() -> tuple[str, str, dict[str, str]]:
    """Return the host and the scheme of a request that the project answers, and the header that claims it.

    The header, a WSGI variable, is that of a proxy; it is there only if the project trusts it.
    """
    host = next(iter(_named_hosts()), "localhost")
    if not settings.SECURE_SSL_REDIRECT:
        return host, "http", {}
    header: Any = settings.SECURE_PROXY_SSL_HEADER or ()
    return host, "https", dict([header]) if len(header) == 2 else {}


# Keys


def secret_keys() -> list[str]:
    """Return the key that signs, and those that are accepted besides."""
    return [str(settings.SECRET_KEY), *map(str, settings.SECRET_KEY_FALLBACKS)]
