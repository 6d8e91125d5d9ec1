"""The directories that a site writes to, by the settings of its project."""

from __future__ import annotations

import pytest

from django_wspbus.conf.written import used_sockets, written_directories

pytestmark = [
    pytest.mark.filterwarnings("ignore:Overriding setting DATABASES"),
    pytest.mark.filterwarnings("ignore:.*MAILERS"),
]


def test_uploads_databases_caches_sessions_and_mail_are_written(settings):
    settings.MEDIA_ROOT = "/srv/media"
    settings.STORAGES = {"private": {"BACKEND": "shop.Storage", "OPTIONS": {"location": "/srv/private"}}}
    settings.DATABASES = {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/data/db.sqlite3"},
        "memory": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        "other": {"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": "/tmp"},
    }
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": "/srv/cache",
        },
        "other": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "a name"},
    }
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.file"
    settings.SESSION_FILE_PATH = "/srv/sessions"
    settings.EMAIL_FILE_PATH = "/srv/mail"
    settings.FILE_UPLOAD_TEMP_DIR = "/srv/uploads"

    names = ("cache", "data", "mail", "media", "private", "sessions", "uploads")
    assert sorted(written_directories()) == [f"/srv/{name}" for name in names]
    assert list(used_sockets()) == ["/tmp"]


def test_a_project_without_files_writes_nothing(settings):
    settings.MEDIA_ROOT = ""
    settings.STORAGES = {}
    settings.DATABASES = {}

    assert list(written_directories()) == []


def test_mailers_that_write_files_count(settings):
    settings.MEDIA_ROOT, settings.STORAGES, settings.DATABASES = "", {}, {}
    backend = "django.core.mail.backends.filebased.EmailBackend"
    settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": {"file_path": "/srv/mail"}}}

    assert list(written_directories()) == ["/srv/mail"]
