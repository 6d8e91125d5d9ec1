"""The database connections of a thread that is none of a request."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

from django.apps import apps
from django.db import close_old_connections, connections


@contextmanager
def fresh_connections(*, ends: bool = False) -> Generator[None]:
    """Close the connections of this thread that are too old or broken, before and after a block.

    ``ends``: the thread ends after the block, and closes all of them.
    """
    if not apps.ready:  # without Django there are no connections
        yield
        return
    close_old_connections()
    try:
        yield
    finally:
        if ends:
            close_all_connections()
        else:
            close_old_connections()


def close_broken_connections() -> None:
    """Close the connections of this thread that have failed, or are too old, as far as they can be closed."""
    with suppress(Exception):  # of a backend: the thread has other work
        if apps.ready:
            close_old_connections()


def close_all_connections() -> None:
    """Close the connections of this thread, which ends, as far as they can be closed."""
    with suppress(Exception):  # of a backend: it must not undo what the thread has done
        if apps.ready:
            connections.close_all()
