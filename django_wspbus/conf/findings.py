"""Findings: the mistakes in a configuration, each with the id of its system check."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.core import checks
from django.utils.functional import Promise

IDS = {
    "E001": "An unknown key; the message names the nearest known one.",
    "E002": "A value of the wrong type or shape.",
    "E003": "An address that cannot be bound: it is malformed, or its port is out of range.",
    "E004": "An address that is used twice, by servers or by a server and the probes.",
    "E005": "A dotted path that cannot be imported.",
    "E006": (
        "An application that is not WSGI: an ASGI application, "
        "or one that cannot be called with `(environ, start_response)`."
    ),
    "E007": "An unknown signal.",
    "E008": "A signal that no process can catch.",
    "E009": "An unknown user or group, or one that this process is not allowed to become.",
    "E010": "A PID file that cannot be written.",
    "E011": "An output file, or the directory of a Unix socket, that cannot be written.",
    "E012": "An option that the server does not know, or a value that it does not take.",
    "E013": "An option of a server that belongs to the site; the message names the key to use instead.",
    "E014": "A backend of the wrong kind.",
    "E015": "A number out of range.",
    "E016": "A file that is named by an option and cannot be read.",
    "E017": "Static files are switched on without `django.contrib.staticfiles`.",
    "E018": "Settings that exclude each other: `AUTORELOAD` and `DAEMONIZE`.",
    "E019": (
        "`ALLOWED_HOSTS` with which Django answers every request with 400: "
        "it is empty without `DEBUG`, or names no host."
    ),
    "E020": "A key that the server does not support: `REQUEST_TIMEOUT` or `RECYCLE`.",
    "E021": 'Two settings for the same thing: `RECYCLE["REQUESTS"]` and gunicorn\'s `max_requests`.',
    "E022": "A library that the engine of the fleet needs, and that is not installed.",
    "E023": "A database of `FLEET` that is not one of `DATABASES`, or not PostgreSQL with psycopg 3.",
    "E024": (
        "The app `django_wspbus.fleet.postgres` is missing in `INSTALLED_APPS`, "
        "or its tables in the database."
    ),
    "E025": (
        "An engine of the fleet that refuses the site, as its password is wrong or its database is missing; "
        "or one that cannot keep a lease: it may evict keys, is a replica, is too old, or lacks a permission."
    ),
    "E026": "A connection pooler between the fleet and PostgreSQL that drops notifications.",
    "E027": "An alias of `PROCESSES` or `SERVERS` that is taken: by another, or by the leader process.",
    "E028": "A management command, or a program, of `PROCESSES` that does not exist.",
    "W001": "A signal that publishes on a channel whose name is almost that of an action.",
    "W002": "gunicorn's `timeout` ends a sync worker before `REQUEST_TIMEOUT` replaces it.",
    "W003": "An engine of the fleet that does not answer.",
}
"""The sentence for each id, as docs/checks.md shows it."""


_USER_OF_URL = re.compile(r"://\S*@")


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: the id, the path of the key, the value it has, and in the hint the values it takes."""

    id: str
    path: str
    message: str
    hint: str | None = None
    level: int | None = None
    """Django's level, for a finding of another package; our ids begin with the letter of theirs."""

    @property
    def is_error(self) -> bool:
        return self.id.startswith("E") if self.level is None else self.level >= checks.ERROR

    @property
    def full_id(self) -> str:
        return self.id if self.level is not None else f"django_wspbus.{self.id}"

    @property
    def line(self) -> str:
        """The finding in one line, for a terminal."""
        # What an engine says may end without a period.
        stop = "" if self.message.endswith((".", "?", "!")) else "."
        hint = f"{stop} {self.hint}" if self.hint else ""
        return f"{self.path}: {self.message}{hint} ({self.full_id})"

    def as_check(self) -> checks.CheckMessage:
        level = self.level or (checks.ERROR if self.is_error else checks.WARNING)
        return checks.CheckMessage(level, f"{self.path}: {self.message}", hint=self.hint, id=self.full_id)


class Place:
    """A key of WSPBUS while its value is read, and the list that collects the findings."""

    def __init__(self, path: str = "WSPBUS", problems: list[Problem] | None = None) -> None:
        self.path = path
        self.problems: list[Problem] = [] if problems is None else problems

    def at(self, key: object) -> Place:
        """Return the place of a key, or of an index, in the value at this place."""
        return Place(self.path + subscript(key), self.problems)

    def add(self, id: str, message: str, hint: str | None = None) -> None:  # noqa: A002
        self.problems.append(Problem(id, self.path, message, hint))

    def wrong(self, got: Any, takes: str) -> None:
        """Add that the value is of the wrong type or shape."""
        self.add("E002", f"got {shown(got)}.", f"It takes {takes}.")


def setting_path(*keys: str | int) -> str:
    """Return the path of a key as in Python: ``WSPBUS["SERVERS"]["default"]``."""
    return "WSPBUS" + "".join(map(subscript, keys))


def subscript(key: object) -> str:
    return f'["{key}"]' if isinstance(key, str) else f"[{key!r}]"


def shown(value: Any) -> str:
    """Return a value as Python writes it, cut to the length that fits a message."""
    try:
        text = repr(value)
    except Exception:  # of a class of the project; or an int has too many digits to print
        text = f"a value of type {type(value).__name__}"
    text = without_passwords(text)
    if isinstance(value, Promise):  # its repr is that of the string it will be
        text = f"a lazy string, {text}"
    return text if len(text) <= 80 else text[:77] + "..."


def without_passwords(text: str) -> str:
    """Return a text without the user and password of any URL in it."""
    return _USER_OF_URL.sub("://***@", text)
