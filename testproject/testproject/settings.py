"""A demonstration with two servers. For a site of your own, see "In your project" in README.md."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "for this demonstration only: it is public"
DEBUG = os.environ.get("CATALOGUE_DEBUG", "1") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

WSPBUS = {
    "SERVERS": {
        "gunicorn": {
            "BIND": "127.0.0.1:8000",
            "OPTIONS": {"workers": 2, "threads": 4},
            "REQUEST_TIMEOUT": 30,
        },
        "threaded": {
            "BACKEND": "django_wspbus.servers.threaded.ThreadedServer",
            "BIND": "127.0.0.1:8001",
        },
    },
}

WSPBUS["SERVERS"]["gunicorn"]["OPTIONS"]["access_log_format"] = '"%(r)s" %(s)s %(B)s'
WSPBUS["WARMUP"] = ["/"]
WSPBUS["HEALTH"] = "127.0.0.1:0"  # a free port, shown in the banner
for alias, server in WSPBUS["SERVERS"].items():
    server["BIND"] = os.environ.get(f"CATALOGUE_BIND_{alias.upper()}", server["BIND"])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_wspbus",
    "catalogue",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "testproject.urls"
WSGI_APPLICATION = "testproject.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "catalogue.context_processors.answered_by",
            ],
        },
    }
]

# Several processes write: each transaction waits for its lock when it begins, and reads do not wait.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CATALOGUE_DATABASE", BASE_DIR / "db.sqlite3"),
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"

# Each line names its process. The bus, gunicorn and the requests of both servers are shown.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "short": {
            "format": "{asctime} {process:>7} {name:<15} {message}",
            "datefmt": "%H:%M:%S",
            "style": "{",
        },
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "short"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": ["console"], "level": "INFO", "propagate": False},
        "django.server": {"handlers": ["console"], "level": "INFO", "propagate": False},
        "django_wspbus": {"level": "INFO"},
        "gunicorn.access": {"level": "INFO"},
        "gunicorn.error": {"level": "INFO"},
    },
}
