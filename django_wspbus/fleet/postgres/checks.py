"""The checks of the engine over PostgreSQL."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from django.apps import apps
from django.db import connections, router

from ...conf.checks import check_text
from ...conf.findings import Problem, shown
from ..base import Engine, Listener

APP = "django_wspbus.fleet.postgres"

LABEL = "wspbus_fleet"


def check_database(path: str, options: Mapping[str, Any]) -> Iterable[Problem]:
    """Find a database that is not one of the project's on PostgreSQL, and a missing app."""
    yield from check_text(path, options, "database")
    alias = options.get("database", "default")
    if isinstance(alias, str) and alias:
        where = f'{path}["database"]'
        if alias not in connections.settings:
            known = ", ".join(connections.settings)
            yield Problem("E023", where, f"got {shown(alias)}.", f"It takes an alias of DATABASES: {known}.")
        elif connections[alias].vendor != "postgresql":
            message = f"the database {alias!r} is {connections[alias].display_name}, and not PostgreSQL."
            yield Problem("E023", where, message)
    if not apps.is_installed(APP):
        message = f"the app {APP!r} is not installed."
        hint = f"Add it to INSTALLED_APPS, and run manage.py migrate --database={alias}."
        yield Problem("E024", path, message, hint)


def check_condition(path: str, in_recovery: bool, is_read_only: bool) -> Iterable[Problem]:
    """Find a server that takes no writes."""
    if in_recovery:
        message = "this PostgreSQL is a standby, which takes no writes."
        yield Problem("E025", path, message, "Name the primary in DATABASES.")
    elif is_read_only:
        message = "this PostgreSQL takes no writes: default_transaction_read_only is on."
        yield Problem("E025", path, message)


def check_tables(path: str, alias: str, tables: Iterable[tuple[str, bool]]) -> Iterable[Problem]:
    missing = [name for name, exists in tables if not exists]
    if missing:
        hint = f"Run: manage.py migrate --database={alias}"
        if not router.allow_migrate(alias, LABEL):
            hint = "A router of DATABASE_ROUTERS keeps them out of this database (allow_migrate)."
        yield Problem("E024", path, f"the database {alias!r} has no table {', '.join(missing)}.", hint)


def check_privileges(path: str, missing: Iterable[tuple[str, str]]) -> Iterable[Problem]:
    lacking = [f"{privilege} on {name}" for privilege, name in missing]
    if lacking:
        yield Problem("E025", path, f"PostgreSQL does not permit {', '.join(lacking)}.", "GRANT them.")


def check_notifications(path: str, engine: Engine) -> Iterable[Problem]:
    """Find a pooler that gives each transaction another session, so that a LISTEN is lost."""
    member = secrets.token_hex(8)
    listener = engine.listen(member)
    try:
        engine.send([(member, b"check")])
        if not _arrives(listener, engine.timeout):
            message = "a notification does not arrive where a connection listens for it."
            hint = (
                "A pooler such as pgbouncer, in the mode transaction, drops it. Give the fleet an alias of "
                "DATABASES that connects to the server itself, or through a pool of the mode session."
            )
            yield Problem("E026", path, message, hint)
    finally:
        listener.close()


def _arrives(listener: Listener, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while (rest := deadline - time.monotonic()) > 0:
        if b"check" in listener.receive(rest):
            return True
    return False
