"""The engine over PostgreSQL, which is also an app: its models are what a fleet stores."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # An app is imported in projects without psycopg, too, such as those that develop on SQLite.
    if name == "PostgresFleet":
        from .engine import PostgresFleet

        return PostgresFleet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
