"""``python -m django_wspbus ACTION``: ask a site, and show its replies."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NoReturn, TextIO

from .. import __version__
from ..control.client import ask
from ..control.conversation import ControlError, Disconnected, is_allowed
from ..control.finding import FoundSite, SilentSite, SiteNotFound
from ..control.protocol import MOST_RECORDS, Entry, Error, Result, Step
from ..system.streams import open_missing
from .blocks import Block, Line, Output, Text
from .choosing import Own, as_values, chosen, explanation
from .parser import ACTIONS, INTERVAL, Subcommand, parse
from .plain import Plain
from .results import log_record

FAILED, NO_SITE = 1, 3
INTERRUPTED, PIPE_CLOSED = 130, 141
"""Exit statuses, as a shell has them for SIGINT and SIGPIPE."""


def main(arguments: list[str]) -> int:
    """Run the command line of ``python -m django_wspbus``; return the exit status."""
    open_missing()
    return run(parse(arguments, __version__))


def run(options: argparse.Namespace, own: Own | None = None, *, with_colours: bool = True) -> int:
    """Run an action; return the exit status. ``own``: the project of ``manage.py``."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a test, or a command, has replaced it
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = Command(options, own, with_colours).run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return PIPE_CLOSED
    except OSError as error:
        _discard_output()
        sys.stderr.write(f"The output cannot be written: {error.strerror}\n")
        return FAILED
    return status


def _discard_output() -> None:
    """Discard what the interpreter would try to write again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def output_to(stream: TextIO, with_colours: bool) -> Output:
    """Return the output for a stream: that of rich for a terminal, if rich is installed."""
    if with_colours and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        with contextlib.suppress(ImportError):
            from .pretty import Pretty

            return Pretty(stream)
    return Plain(stream)


class Command:
    """One action with its options, and the streams that it writes to."""

    def __init__(self, options: argparse.Namespace, own: Own | None, with_colours: bool) -> None:
        self._options = options
        self._own = own
        self._action: Subcommand = ACTIONS[options.action]
        self._is_json: bool = options.json
        self._shown: deque[Mapping[str, Any]] = deque(maxlen=MOST_RECORDS)
        """The log records shown last, which a site sends again after a restart."""
        self._output = output_to(sys.stdout, with_colours and not self._is_json)
        self._errors = output_to(sys.stderr, with_colours)

    def run(self) -> int:
        """Run the action; return the exit status."""
        try:
            site = self._choose()
            if getattr(self._options, "watch", False):
                self._watch(site)
            return self._follow(site) if getattr(self._options, "follow", False) else self._ask(site)
        except SilentSite as error:
            if self._options.action == "stacks" and is_allowed(error.site.uid):
                return self._show_stacks_of(error.site)
            return self._fail(error)
        except ControlError as error:
            return self._fail(error)

    def _choose(self) -> FoundSite:
        return chosen(self._options, self._own)

    def _ask(self, site: FoundSite) -> int:
        """Show the replies as they come."""
        arguments = self._action.arguments(self._options)
        for reply in ask(site, self._options.action, arguments, timeout=self._action.timeout):
            match reply:
                case Step(text):
                    self._show([Line(text, "dim")])
                case Entry(values) if values not in self._shown:
                    self._shown.append(values)
                    self._show(list(log_record(values)), values)
                case Result(value):
                    return self._finish(value)
                case Error(text, status):
                    self._print({"error": text, "status": status})
                    self._explain([Text(text, indent=0)])
                    return status if 0 < status < 126 else FAILED
        raise ControlError("The site has closed the connection before it answered.")

    def _follow(self, site: FoundSite) -> int:
        """Show log records as they come. A restart of the site ends the connection, and not the log."""
        while True:
            latest = list(self._shown)
            try:
                return self._ask(site)
            except Disconnected:
                if latest == list(self._shown):
                    raise

    def _finish(self, value: Any) -> int:
        """Show a result; return the exit status."""
        if self._is_json:
            self._print(value)
        values: Mapping[str, Any] = value if isinstance(value, dict) else {}
        if not self._is_json:
            self._output.show(list(self._action.show(values)))
        return 0 if self._action.succeeds(values) else FAILED

    def _show(self, blocks: list[Block], values: Any = None) -> None:
        if not self._is_json:
            self._output.show(blocks)
        elif values is not None:
            self._print(values)

    def _print(self, value: Any) -> None:
        if self._is_json:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()

    def _explain(self, blocks: list[Block]) -> None:
        sys.stdout.flush()
        self._errors.show(blocks)

    def _fail(self, error: ControlError) -> int:
        is_missing = isinstance(error, SiteNotFound) and self._options.action == "status"
        status = NO_SITE if is_missing else error.status
        self._explain(list(explanation(error)))
        if self._is_json:
            self._print({"error": str(error), "status": status, "sites": as_values(error)})
        return status

    def _show_stacks_of(self, site: FoundSite) -> int:
        """Show the stacks of a site process that does not answer."""
        # It imports more than a command that gets an answer.
        from ..control.hanging import find_process, stacks_in_place_of_site

        hint = "These are the stacks of its own process:"
        self._explain([Line(str(SilentSite(site)), "bad"), Line(hint)])
        self._finish(stacks_in_place_of_site(find_process(site)))
        return FAILED

    # status --watch

    def _watch(self, site: FoundSite) -> NoReturn:
        """Show the status again and again, until the user interrupts this."""
        with self._output.live() as show:
            while True:
                blocks, value, site = self._look(site)
                if self._is_json:
                    self._print(value)
                else:
                    show([Line(time.strftime("%H:%M:%S"), "dim"), *blocks])
                time.sleep(INTERVAL)

    def _look(self, site: FoundSite) -> tuple[list[Block], Any, FoundSite]:
        """Return the status, or the reason why there is none, and the site to ask next."""
        try:
            arguments = self._action.arguments(self._options)
            for reply in ask(site, "status", arguments, timeout=self._action.timeout):
                match reply:
                    case Result(dict() as value):
                        return list(self._action.show(value)), value, site
                    case Error(text, status):
                        return [Text(text, indent=0)], {"error": text, "status": status}, site
        except ControlError as error:
            reason = str(error)
            with contextlib.suppress(ControlError):
                site = self._choose()  # the site may have been started again meanwhile
            return [Line(f"Not well: {reason}", "bad")], {"error": reason, "status": FAILED}, site
        return [], None, site
