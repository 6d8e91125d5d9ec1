"""The files and directories of the project's settings that a site writes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings


def written_directories() -> Iterator[str]:
    """Yield the directories that uploads, SQLite, caches, sessions and mail are written to."""
    yield from _text(settings.MEDIA_ROOT)
    for storage in settings.STORAGES.values():
        yield from _text(_mapping(storage.get("OPTIONS")).get("location"))
    for database in settings.DATABASES.values():
        if "sqlite" in str(database.get("ENGINE")) or "spatialite" in str(database.get("ENGINE")):
            yield from _directory_of(database.get("NAME"))  # the journal is a file beside it
    for cache in settings.CACHES.values():
        if "filebased" in str(cache.get("BACKEND")):
            yield from _text(cache.get("LOCATION"))
    if settings.SESSION_ENGINE.endswith(".file"):
        yield from _text(settings.SESSION_FILE_PATH)
    yield from _mail()
    yield from _text(settings.FILE_UPLOAD_TEMP_DIR)


def _mail() -> Iterator[str]:
    for mailer in _mapping(getattr(settings, "MAILERS", None)).values():  # Django 6.1
        if "filebased" in str(mailer.get("BACKEND")):
            yield from _text(_mapping(mailer.get("OPTIONS")).get("file_path"))
    if settings.is_overridden("EMAIL_FILE_PATH"):  # reading its default is deprecated
        with warnings.catch_warnings(action="ignore"):
            yield from _text(settings.EMAIL_FILE_PATH)


def used_sockets() -> Iterator[str]:
    """Yield the paths of HOST of databases: the directories of Unix sockets."""
    for database in settings.DATABASES.values():
        host = str(database.get("HOST") or "")
        if host.startswith("/"):
            yield host


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> Iterator[str]:
    if value:
        yield os.fspath(value)


def _directory_of(value: Any) -> Iterator[str]:
    for path in _text(value):
        if path != ":memory:" and not path.startswith("file:"):
            yield os.path.dirname(os.path.abspath(path))
