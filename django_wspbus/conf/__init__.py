"""The settings of the project: WSPBUS, as typed objects, and the others that matter here."""

from __future__ import annotations

from .findings import setting_path
from .fleet import FleetSettings
from .processes import ProcessSettings
from .project import (
    allowed_hosts,
    allows_hosts,
    app_folders,
    default_application,
    has_static_files,
    is_debug,
    logging_names,
    own_host,
    root_urlconf,
    secret_keys,
    serves_static_files,
    settings_module,
)
from .reading import get, problems, read
from .schema import Settings
from .sections import (
    GUNICORN,
    LEADER_ALIAS,
    THREADED,
    Autoreload,
    Daemonize,
    PluginSettings,
    Recycle,
    ServerSettings,
)

__all__ = [
    "GUNICORN",
    "LEADER_ALIAS",
    "THREADED",
    "Autoreload",
    "Daemonize",
    "FleetSettings",
    "PluginSettings",
    "ProcessSettings",
    "Recycle",
    "ServerSettings",
    "Settings",
    "allowed_hosts",
    "allows_hosts",
    "app_folders",
    "default_application",
    "get",
    "has_static_files",
    "is_debug",
    "logging_names",
    "own_host",
    "problems",
    "read",
    "root_urlconf",
    "secret_keys",
    "serves_static_files",
    "setting_path",
    "settings_module",
]
