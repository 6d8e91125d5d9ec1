"""What ``runserver`` gives a developer, for ``runbus``: its checks, warnings and banner."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.core.management.color import no_style
from django.db import connections
from django.utils.log import ServerFormatter
from django.utils.version import get_docs_version

from .. import conf
from ..project.tracebacks import explain

# Before it serves


def prepare(
    command: BaseCommand, options: Mapping[str, Any], *, is_renewed: bool = False, is_known: bool = False
) -> None:
    """Do what runserver does before it serves: system checks, and the warning about migrations.

    Under DEBUG only: without it a site process does not import the URLconf. A `CommandError` if a
    check is an error; over a restart they are made by `rehearse`, which refuses it. ``is_known``:
    whether all has been said once, and only what is wrong is of interest.
    """
    if not conf.is_debug() or options["skip_checks"]:
        return
    command.stdout = OutputWrapper(cast(Any, Patient(command.stdout)))
    if not is_renewed:
        check_project(command, silent=is_known or options["verbosity"] == 0)
    if options["verbosity"] > 0:
        check_migrations(command)


def rehearse(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Make the system checks of a program that is to take the place of the one that serves."""
    if conf.is_debug() and not options["skip_checks"]:
        check_project(command, silent=True)


class Patient:
    """An output that may be closed: nobody reads it, which is no reason not to serve."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)


def check_project(command: BaseCommand, *, silent: bool = False) -> None:
    """Make the system checks that runserver makes; a `CommandError` if one is an error.

    ``silent``: say nothing if they find nothing.
    """
    if not silent:
        command.stdout.write("Performing system checks...\n\n")
    try:
        # Of any command: of its own this one has none, as it would have them without DEBUG, too.
        which: dict[str, Any] = cast(Any, BaseCommand().get_check_kwargs({}))
        command.check(**which, display_num_errors=not silent)
    except CommandError:  # what the checks found
        raise
    except Exception as error:  # the project's own code: anything may come
        raise CommandError(explain(error)) from error
    finally:
        close_connections()


def check_migrations(command: BaseCommand) -> None:
    """Warn of migrations that are not applied; a database that cannot be asked is told in a line.

    In a thread of its own, too: the connections of the thread are closed.
    """
    try:
        command.check_migrations()
    except Exception as error:  # of any database, or of a migration: nothing that a site could not do without
        reason = " ".join(str(error).split())
        message = f"The migrations were not checked: {type(error).__name__}: {reason}"
        command.stdout.write(command.style.NOTICE(message))
    finally:
        close_connections()


def close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        connection.close()


# What is shown


def forget_colours() -> None:
    """Write request lines without colours: here, where LOGGING is set up already, and in child processes."""
    os.environ["DJANGO_COLORS"] = "nocolor"
    for handler in logging.getLogger("django.server").handlers:
        if isinstance(handler.formatter, ServerFormatter):
            handler.formatter.style = no_style()


def frame(banner: Iterable[str], command: BaseCommand, *, warns: bool) -> Iterator[str]:
    """Yield a banner between the date and, if it ``warns``, the warning of runserver about production."""
    yield datetime.now().strftime("%B %d, %Y - %X")
    yield from banner
    hidden = os.environ.get("DJANGO_RUNSERVER_HIDE_WARNING") == "true"
    if warns and not hidden:
        yield command.style.WARNING(
            "WARNING: This is a development server. Do not use it in a production setting. "
            "Use a production WSGI or ASGI server instead.\n"
            "For more information on production servers see: "
            f"https://docs.djangoproject.com/en/{get_docs_version()}/howto/deployment/"
        )
