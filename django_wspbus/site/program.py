"""The program that ``runbus`` runs in the site process: it reads the settings, checks them, and serves."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError

from .. import conf
from ..children.dry_run import DryRun, DryRunReport
from ..conf import ServerSettings, Settings
from ..conf.findings import Problem
from ..conf.overrides import Overrides
from ..conf.printing import as_python
from ..development import debuggers, runserver
from ..development.launch import Launch
from ..process.bus import bus
from ..project.tracebacks import explain
from ..servers.base import server_class
from ..successor import start
from ..successor.state import Holdings, SiteState
from ..wspbus import Refusal
from .assembly import Assembly
from .banner import banner, restarted
from .checks import check_start
from .log import is_logged, show_log
from .process import SiteProcess
from .replacement import ExecReplacement, Replacement


class Program:
    """One run of the command in the site process.

    ``command``: whose output, style and system checks it uses; ``options``: those of the command line;
    ``handed_over``: the state that the program before a restart has handed over. All methods raise
    `CommandError` with the reason if the site cannot start.
    """

    def __init__(
        self, command: BaseCommand, options: Mapping[str, Any], handed_over: SiteState | None = None
    ) -> None:
        self.command = command
        self.options = options
        self.handed_over = handed_over

    @functools.cached_property
    def overrides(self) -> Overrides:
        return Overrides(self.options)

    def run(self) -> None:
        """Do what the options ask for: print the settings, check them, or serve until the site exits."""
        settings = self.read(None if self.handed_over is None else self.handed_over.holdings)
        if self.options["print_settings"]:
            self.print_settings(settings)
        elif self.options["check"]:
            self.check(settings)
        else:
            self.serve(settings)

    def plan(self, dry_run: DryRun) -> NoReturn:
        """In a dry run: report the plan of the restarted site, or why it would not start."""
        try:
            settings = self.read(dry_run.held)
            runserver.check_in_dry_run(self.command, self.options)
            plan = SiteProcess(bus, settings).plan()
        except (CommandError, Refusal) as error:
            dry_run.report(DryRunReport(refused=str(error)))
        dry_run.report(DryRunReport(plan))

    # Settings

    def read(self, held: Holdings | None) -> Settings:
        """Return the settings in force; ``held``: what the site already has, over a restart."""
        settings, problems = conf.read(self.overrides.values)
        if settings is not None:
            problems += check_start(settings, held)
        self._refuse(map(self.overrides.sourced, problems))
        assert settings is not None
        return self.overrides.restrict(settings)

    def _refuse(self, problems: Iterable[Problem]) -> None:
        """Raise CommandError with a line for each error; write warnings to stderr."""
        problems = list(problems)
        for problem in problems:
            if not problem.is_error:
                self._warn(problem.line)
        errors = [problem.line for problem in problems if problem.is_error]
        if errors:
            raise CommandError("\n".join(errors))

    def _warn(self, line: str) -> None:
        self.command.stderr.write(self.command.style.WARNING(line))

    def print_settings(self, settings: Settings) -> None:
        def options_of(server: ServerSettings) -> Mapping[str, Any]:
            return server_class(server).effective_options(server, settings)

        with failing_as("The options cannot be read"):
            self.command.stdout.write("\n".join(as_python(settings, options_of)))

    def check(self, settings: Settings) -> None:
        """Find out whether the site would start: ``--check``."""
        with failing_as("The application does not load"):
            SiteProcess(bus, settings).check()
        aliases = ", ".join(settings.servers)
        self.command.stdout.write(f"The settings are valid, and the applications of {aliases} load.")

    # Serving

    def serve(self, settings: Settings) -> None:
        """Serve until the site exits; under AUTORELOAD, become the launcher first."""
        if self.options["no_color"]:
            runserver.disable_colours()
        show_log(self.options["verbosity"])
        launch = Launch.take()
        if launch is None and settings.autoreload:
            settings = self._without_observer(settings)
        replacement = ExecReplacement() if launch is None else self._in_development(launch)
        site = SiteProcess(bus, settings, self.handed_over, replacement, self._say)
        try:
            with refusing():
                if launch is None and settings.autoreload:
                    self._become_launcher(site)
                self._prepare(launch)
                site.run(functools.partial(self._announce, launch))
        except KeyboardInterrupt:  # Ctrl-C before our signal handlers were installed
            raise SystemExit(130) from None

    def _without_observer(self, settings: Settings) -> Settings:
        """Turn AUTORELOAD off if a debugger or profiler observes this process."""
        name = debuggers.find_observer()
        if not name:
            return settings
        self._warn(f"Autoreload is off: {name} observes this process, and would not observe the next one.")
        return dataclasses.replace(settings, autoreload=None)

    def _become_launcher(self, site: SiteProcess) -> NoReturn:
        from ..development.launcher import LauncherStart, become

        start.check()
        sockets = site.listen()
        signals = [name for name, action in site.settings.signals.items() if action is not None]
        become(
            LauncherStart(
                start.original(),
                sockets=sockets,
                debug=conf.is_debug(),
                signals=signals,
                settings=conf.settings_module() or "",
                control=site.listen_for_control(),
            )
        )

    def _in_development(self, launch: Launch) -> Replacement:
        from .development import LauncherReplacement  # with the watchers, which production does not need

        return LauncherReplacement(launch)

    def _prepare(self, launch: Launch | None) -> None:
        is_restart = self.handed_over is not None and launch is None
        is_relaunch = launch is not None and launch.launches > 1
        runserver.prepare(self.command, self.options, is_restart=is_restart, is_relaunch=is_relaunch)

    def _announce(self, launch: Launch | None, site: Assembly) -> None:
        """Print the banner, or how long the restart took."""
        gc.unfreeze()  # frozen by the command, for the time of the start
        if self.options["verbosity"] > 0:
            self._print(self._lines(launch, site))

    def _lines(self, launch: Launch | None, site: Assembly) -> Iterator[str]:
        lines = banner(site)
        if conf.is_debug():
            warns = any(server.is_for_development for server in site.servers)
            lines = runserver.frame(lines, self.command, warns=warns)
        yield from lines if launch is None else launch.lines(lines)
        began = None if self.handed_over is None else self.handed_over.restart_began
        if began is not None and not bus.failed_start:
            yield restarted(began)

    def _say(self, line: str) -> None:
        """Print what the log says, unless the log is shown or ``--verbosity`` is 0."""
        if self.options["verbosity"] == 1 and not is_logged(logging.INFO):
            self._print([line])

    def _print(self, lines: Iterable[str]) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not stop the site
            for line in lines:
                self.command.stdout.write(line)
            self.command.stdout.flush()


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Raise a `Refusal` as the error of the command, with its status."""
    try:
        yield
    except Refusal as refusal:
        raise CommandError(str(refusal), returncode=refusal.status) from None


@contextlib.contextmanager
def failing_as(message: str) -> Iterator[None]:
    """Raise an error of the project's own code as that of the command, with a message and its traceback."""
    try:
        with refusing():
            yield
    except CommandError:
        raise
    except Exception as error:  # the project's code may raise anything
        raise CommandError(f"{message}: {explain(error)}") from error
