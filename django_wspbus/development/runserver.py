"""The checks, warnings and banner of ``runserver``, for ``runbus``."""

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

# Before the site serves


def prepare(
    command: BaseCommand, options: Mapping[str, Any], *, is_restart: bool = False, is_relaunch: bool = False
) -> None:
    """Run the system checks under DEBUG and warn about migrations, as runserver does before it serves.

    A failed check raises `CommandError`. Without DEBUG, the site process does not import the URLconf, so
    there are no checks. ``is_restart``: True after a restart, whose dry run has run the checks
    (`check_in_dry_run`). ``is_relaunch``: True if the launcher has started the site before; then only
    failed checks are shown.
    """
    if not conf.is_debug() or options["skip_checks"]:
        return
    command.stdout = OutputWrapper(cast(Any, ErrorIgnoringOutput(command.stdout)))
    if not is_restart:
        check_project(command, silent=is_relaunch or options["verbosity"] == 0)
    if options["verbosity"] > 0:
        check_migrations(command)


def check_in_dry_run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Run the system checks under DEBUG in the dry run of a restart."""
    if conf.is_debug() and not options["skip_checks"]:
        check_project(command, silent=True)


class ErrorIgnoringOutput:
    """An output that ignores write errors: a closed terminal must not stop the site."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)


def check_project(command: BaseCommand, *, silent: bool = False) -> None:
    """Run the system checks that runserver runs; a failed check raises `CommandError`.

    ``silent``: print nothing if no check fails.
    """
    if not silent:
        command.stdout.write("Performing system checks...\n\n")
    try:
        # ``runbus`` requires no checks, because Django would run them without DEBUG, too. So ask BaseCommand.
        which: dict[str, Any] = cast(Any, BaseCommand().get_check_kwargs({}))
        command.check(**which, display_num_errors=not silent)
    except CommandError:  # a check failed
        raise
    except Exception as error:  # code of the project may raise any error
        raise CommandError(explain(error)) from error
    finally:
        close_connections()


def check_migrations(command: BaseCommand) -> None:
    """Warn about migrations that are not applied. If the database fails, print the error in one line.

    The database connections of this thread are closed afterwards.
    """
    try:
        command.check_migrations()
    except Exception as error:  # the site can serve without this check, whatever fails in it
        reason = " ".join(str(error).split())
        message = f"The migrations were not checked: {type(error).__name__}: {reason}"
        command.stdout.write(command.style.NOTICE(message))
    finally:
        close_connections()


def close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        connection.close()


# Output


def disable_colours() -> None:
    """Disable colours in request lines, in this process and in its child processes."""
    os.environ["DJANGO_COLORS"] = "nocolor"
    for handler in logging.getLogger("django.server").handlers:
        if isinstance(handler.formatter, ServerFormatter):
            handler.formatter.style = no_style()


def frame(banner: Iterable[str], command: BaseCommand, *, warns: bool) -> Iterator[str]:
    """Yield the date, the banner and, if ``warns`` is true, runserver's warning about production."""
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
