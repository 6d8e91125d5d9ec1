"""``manage.py runbus``: a parser, and a hand-off to the site process."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import django
from django.core.management.base import BaseCommand, CommandError

from ... import __version__, conf
from ...children.dry_run import DryRun, DryRunReport
from ...children.spawn import run_child
from ...conf import ServerSettings, Settings
from ...conf.findings import Problem
from ...conf.overrides import Overrides, add_arguments
from ...conf.printing import print_settings
from ...development import debuggers, runserver
from ...development.launch import HEALTH, Launch
from ...development.launcher import become
from ...process.bus import bus
from ...project.tracebacks import explain
from ...servers.base import server_class
from ...site.checks import check_start
from ...site.process import SiteProcess
from ...site.replacement import ExecReplacement, LauncherReplacement
from ...successor import start
from ...successor.order import Order
from ...successor.state import Holdings, SiteState
from ...successor.values import UnknownVersion
from ...system.streams import open_missing
from ...wspbus import Refusal
from ...wspbus.ending import STARTUP_DIRECTORY

PROBES = ("livez", "readyz")


class Command(BaseCommand):
    help = "Serves the site: every server of WSPBUS, on one Web Site Process Bus."
    # The project's checks import its URLconf, which is for the processes that serve.
    requires_system_checks = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        open_missing()  # before anything else of ours opens a file
        super().__init__(*args, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser)
        parser.add_argument(
            "--check",
            action="store_true",
            help="Validate the settings, load the applications, and leave.",
        )
        parser.add_argument(
            "--print-settings", action="store_true", help="Print every setting in force, and leave."
        )
        parser.add_argument("--skip-checks", action="store_true", help="Skip the system checks under DEBUG.")

    def handle(self, *args: Any, **options: Any) -> None:
        start.original()
        try:
            order, handed_over = Order.take(), SiteState.take()
        except UnknownVersion as error:
            raise CommandError(str(error)) from None
        if STARTUP_DIRECTORY is None:
            raise CommandError("The working directory has been removed: start runbus in another one.")
        if order is None:
            self.serve(options, handed_over)
        elif "child" in order.values:
            if options["no_color"]:
                runserver.forget_colours()
            run_child(order, Overrides(options).values)
        else:
            self.plan(options, DryRun(order))

    def plan(self, options: dict[str, Any], dry_run: DryRun) -> NoReturn:
        """In a dry run: report what the restarted site would be, or why it would not start."""
        try:
            overrides = Overrides(options)
            settings = self.settings(overrides, dry_run.held)
            runserver.rehearse(self, options)
            plan = SiteProcess(bus, settings, overrides.values).plan()
        except (CommandError, Refusal) as error:
            dry_run.report(DryRunReport(refused=str(error)))
        dry_run.report(DryRunReport(plan))

    def serve(self, options: dict[str, Any], handed_over: SiteState | None) -> None:
        overrides = Overrides(options)
        settings = self.settings(overrides, None if handed_over is None else handed_over.holdings)
        if options["print_settings"]:
            try:
                self.stdout.write(
                    "\n".join(print_settings(settings, functools.partial(options_of, settings)))
                )
            except Refusal as refusal:
                raise CommandError(str(refusal)) from None
            except Exception as error:  # of the project's own code, as gunicorn's configuration file
                raise CommandError(f"The options cannot be read: {explain(error)}") from error
            return
        if options["check"]:
            self.check_and_leave(settings, overrides)
            return
        if options["no_color"]:
            runserver.forget_colours()
        if options["verbosity"] > 1:
            level = logging.DEBUG if options["verbosity"] > 2 else logging.INFO
            bus.subscribe("log", functools.partial(show, level), role="any")
        launch = Launch.take()
        if launch is None and settings.autoreload and (name := debuggers.find_observer()):
            line = f"Autoreload is off: {name} observes this process, and would not observe the next one."
            self.stderr.write(self.style.WARNING(line))
            settings = dataclasses.replace(settings, autoreload=None)
        say = functools.partial(self.say, options["verbosity"])
        replacement = ExecReplacement() if launch is None else LauncherReplacement(launch)
        site = SiteProcess(bus, settings, overrides.values, handed_over, replacement, say)
        if launch is None and settings.autoreload:
            self.become_launcher(site)

        def started() -> None:
            if options["verbosity"] > 0:
                with contextlib.suppress(OSError):  # nobody reads it, which is no reason not to serve
                    lines = banner(site)
                    if conf.is_debug():
                        warns = any(server.is_for_development for server in site.servers)
                        lines = runserver.frame(lines, self, warns=warns)
                    if launch is not None:
                        lines = launch.news(lines)
                    for line in lines:
                        self.stdout.write(line)
                    if (
                        handed_over is not None
                        and handed_over.restart_began is not None
                        and not bus.failed_start
                    ):
                        self.stdout.write(
                            f"Restarted in {time.monotonic() - handed_over.restart_began:.2f} s."
                        )
                    self.stdout.flush()

        try:
            is_renewed = handed_over is not None and launch is None
            is_known = launch is not None and launch.launches > 1
            runserver.prepare(self, options, is_renewed=is_renewed, is_known=is_known)
            site.run(started)
        except Refusal as refusal:
            raise CommandError(str(refusal), returncode=refusal.status) from None
        except KeyboardInterrupt:  # before our handlers stood
            raise SystemExit(130) from None

    def say(self, verbosity: int, line: str) -> None:
        """Tell the terminal what the log says, unless that is shown or nothing is wanted."""
        if verbosity == 1 and not is_logged(logging.INFO):
            with contextlib.suppress(OSError):  # a closed terminal must not stop the site
                self.stdout.write(line)
                self.stdout.flush()

    def become_launcher(self, site: SiteProcess) -> NoReturn:
        try:
            start.check()
            held = site.listen()
        except Refusal as refusal:
            raise CommandError(str(refusal), returncode=refusal.status) from None
        signals = [name for name, action in site.settings.signals.items() if action is not None]
        become(start.original(), held=held, debug=conf.is_debug(), signals=signals)

    def settings(self, overrides: Overrides, held: Holdings | None) -> Settings:
        settings, problems = conf.read(overrides.values)
        if settings is not None:
            problems += check_start(settings, held)
        self.refuse(map(overrides.sourced, problems))
        assert settings is not None
        return overrides.restrict(settings)

    def check_and_leave(self, settings: Settings, overrides: Overrides) -> None:
        try:
            SiteProcess(bus, settings, overrides.values).check()
        except Refusal as refusal:
            raise CommandError(str(refusal), returncode=refusal.status) from None
        except Exception as error:  # the project's own code: anything may come
            raise CommandError(f"The application does not load: {explain(error)}") from error
        self.stdout.write(
            f"The settings are valid, and the applications of {', '.join(settings.servers)} load."
        )

    def refuse(self, problems: Iterable[Problem]) -> None:
        """Raise CommandError with a line for each error; write warnings to stderr."""
        problems = list(problems)
        for problem in problems:
            if not problem.is_error:
                self.stderr.write(self.style.WARNING(problem.line))
        errors = [problem.line for problem in problems if problem.is_error]
        if errors:
            raise CommandError("\n".join(errors))


def options_of(settings: Settings, server: ServerSettings) -> Mapping[str, Any]:
    return server_class(server).effective_options(server, settings)


def banner(site: SiteProcess) -> Iterator[str]:
    """Yield what runserver would say: versions, settings, where to look, how to quit."""
    quit_command = "CTRL-BREAK" if sys.platform == "win32" else "CONTROL-C"
    yield (
        f"django-wspbus {__version__}, Django {django.get_version()}, "
        f"Python {'.'.join(map(str, sys.version_info[:3]))}, settings {conf.settings_module()!r}"
    )
    width = max(len(server.settings.alias) for server in site.servers)
    for server in site.servers:
        urls = " ".join(bound.url for bound in server.bound())
        yield f"  {server.settings.alias:{width}}  {urls}  ({server.title})"
    for bound in site.sockets.of(HEALTH):
        where = [
            f"{bound.url}{path}" if bound.url.endswith("/") else f"{bound.url} /{path}" for path in PROBES
        ]
        yield f"  {'probes':{width}}  {' '.join(where)}"
    yield f"Quit with {quit_command}."


def show(least: int, message: str, level: int = logging.INFO) -> None:
    """Write what the bus logs to stderr, where the project's LOGGING does not show it."""
    if level >= least and not is_logged(level):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {message}\n")


def is_logged(level: int) -> bool:
    """Return whether the project's LOGGING shows what the bus logs at a level."""
    # Asked each time: LOGGING is applied anew when a wsgi.py is imported.
    logger = logging.getLogger("django_wspbus")
    return logger.isEnabledFor(level) and (logger.hasHandlers() or level >= logging.WARNING)
