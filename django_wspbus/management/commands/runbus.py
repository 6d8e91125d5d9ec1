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
from ...conf import Settings
from ...conf.findings import Problem
from ...development import debuggers, runserver
from ...development.launch import HEALTH, Launch
from ...development.launcher import become
from ...process.bus import bus
from ...project.tracebacks import explain
from ...servers.base import server_class
from ...site.assembly import SiteProcess
from ...site.checks import check_start
from ...successor import start
from ...successor.order import Order
from ...successor.state import Holdings, SiteState
from ...successor.values import UnknownVersion
from ...system.streams import open_missing
from ...wspbus import STARTUP_DIRECTORY, Refusal

PROBES = ("livez", "readyz")


class Command(BaseCommand):
    help = "Serves the site: every server of WSPBUS, on one Web Site Process Bus."
    # The project's checks import its URLconf, which is for the processes that serve.
    requires_system_checks = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        open_missing()  # before anything else of ours opens a file
        super().__init__(*args, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("addrport", nargs="?", help="Port, or address:port, to serve on instead of BIND.")
        parser.add_argument("--server", metavar="ALIAS", help="Run only this one of the SERVERS.")
        parser.add_argument(
            "--bind", action="append", help="Address to serve on instead of BIND; repeatable."
        )
        parser.add_argument("--workers", type=int, help="Number of workers, in place of that in OPTIONS.")
        parser.add_argument("--threads", type=int, help="Threads of a worker, in place of those in OPTIONS.")
        parser.add_argument("--noreload", action="store_true", help="Turn AUTORELOAD off.")
        parser.add_argument("--daemonize", action="store_true", help="Run in the background.")
        parser.add_argument("--pidfile", help="File for the PID of the site process.")
        parser.add_argument("--user", help="User to become once the sockets are bound.")
        parser.add_argument("--group", help="Group to become once the sockets are bound.")
        parser.add_argument("--umask", help="File mode creation mask, in octal.")
        parser.add_argument(
            "--check",
            action="store_true",
            help="Validate the settings, load the applications, and leave.",
        )
        parser.add_argument(
            "--print-settings", action="store_true", help="Print every setting in force, and leave."
        )
        runserver.add_arguments(parser)

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
                self.stdout.write("\n".join(describe(settings)))
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
        site = SiteProcess(bus, settings, overrides.values, handed_over, launch, say)
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
        return settings if overrides.only is None else overrides.restrict(settings)

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


class Overrides:
    """The options of a command line, in the shape of WSPBUS."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.only: str | None = options["server"]
        for name in ("pidfile", "user", "group", "umask"):
            if options[name] is not None:
                self.set([name.upper()], options[name], f"--{name}")
        for name in ("USER", "GROUP"):  # numbers as numbers; a umask of digits is octal
            if str(self.values.get(name, "")).isdecimal():
                self.values[name] = int(self.values[name])
        if options["daemonize"] and not self.raw("DAEMONIZE"):
            self.set(["DAEMONIZE"], True, "--daemonize")
        if options["noreload"]:
            self.set(["AUTORELOAD"], False, "--noreload")
        bind = options["bind"]
        option = "--bind"
        if options["addrport"] is not None or options["use_ipv6"]:
            option = "--ipv6" if options["addrport"] is None else "address:port"
            if bind:
                named = "an address:port argument" if option == "address:port" else option
                raise CommandError(f"--bind and {named} mean the same: give one of them.")
            bind = [runserver.parse_addrport(options["addrport"], options["use_ipv6"])]
        if bind:
            self.set_of_one(["BIND"], bind, option)
        if options["nothreading"]:
            self.set_of_one(["OPTIONS", "threading"], False, "--nothreading")
        static_files = runserver.static_files(options)
        if static_files is not None:
            self.set(["STATIC_FILES"], *static_files)
        for name in ("workers", "threads"):
            if options[name] is not None:
                self.set_of_one(["OPTIONS", name], options[name], f"--{name}")
        self.alias()

    def sourced(self, problem: Problem) -> Problem:
        """Return a finding that names the option instead of the setting it overrides."""
        return dataclasses.replace(problem, path=self.sources.get(problem.path, problem.path))

    def raw(self, key: str) -> Any:
        raw = conf.raw_settings()
        return raw.get(key) if isinstance(raw, Mapping) else None

    def alias(self, option: str | None = None) -> str | None:
        """Return the alias of the one server meant, None if there is none; a CommandError if several."""
        servers = self.raw("SERVERS")
        aliases = list(servers) if isinstance(servers, Mapping) else []
        known = ", ".join(map(repr, aliases))
        if not aliases:
            return None  # and the settings are wrong, which is told later
        if self.only is not None:
            if self.only not in aliases:
                raise CommandError(f"--server: there is no server {self.only!r}. WSPBUS has {known}.")
            return self.only
        if option is not None and len(aliases) > 1:
            raise CommandError(
                f"{option} speaks of one server, and WSPBUS has several: add --server, one of {known}."
            )
        return str(aliases[0])

    def set(self, keys: list[str], value: Any, option: str) -> None:
        inner = self.values
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = value
        self.sources[conf.setting_path(*keys)] = option

    def set_of_one(self, keys: list[str], value: Any, option: str) -> None:
        alias = self.alias(option)
        if alias is not None:
            self.set(["SERVERS", alias, *keys], value, option)

    def restrict(self, settings: Settings) -> Settings:
        """Return the settings with the one server of ``--server``."""
        assert self.only is not None
        return dataclasses.replace(settings, servers={self.only: settings.servers[self.only]})


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


def describe(settings: Settings) -> Iterator[str]:
    """Yield every setting in force as a line of Python."""
    for alias, server in settings.servers.items():
        values: dict[str, Any] = {
            "BACKEND": server.backend,
            "BIND": [str(address) for address in server.bind],
            "APPLICATION": server.application or conf.default_application(),
            "MOUNTS": dict(server.mounts),
            "OPTIONS": server_class(server).effective_options(server, settings),
        }
        for key, value in values.items():
            yield f"{conf.setting_path('SERVERS', alias, key)} = {value!r}"
    autoreload, daemonize = settings.autoreload, settings.daemonize
    others: dict[str, Any] = {
        "AUTORELOAD": autoreload is not None
        and {
            "EXTRA_FILES": list(map(str, autoreload.extra_files)),
            "EXTRA_DIRS": {str(folder): glob for folder, glob in autoreload.extra_dirs.items()},
            "SPARE": autoreload.spare,
            "PRELOAD": list(autoreload.preload),
            "POLL": autoreload.poll,
        },
        "SIGNALS": dict(settings.signals),
        "DAEMONIZE": bool(daemonize)
        and {
            "STDOUT": _text(daemonize and daemonize.stdout),
            "STDERR": _text(daemonize and daemonize.stderr),
        },
        "PIDFILE": _text(settings.pidfile),
        "USER": settings.user,
        "GROUP": settings.group,
        "UMASK": settings.umask if settings.umask is None else f"{settings.umask:03o}",
        "PLUGINS": [
            {"BACKEND": plugin.backend, "OPTIONS": dict(plugin.options)} for plugin in settings.plugins
        ],
        "STATIC_FILES": settings.static_files,
        "WARMUP": list(settings.warmup),
        "READY_TIMEOUT": settings.ready_timeout,
        "DRAIN_DELAY": settings.drain_delay,
        "STOP_TIMEOUT": settings.stop_timeout,
        "HEALTH": _text(settings.health),
        "CONTROL": settings.control if isinstance(settings.control, bool) else _text(settings.control),
    }
    for key, value in others.items():
        yield f"{conf.setting_path(key)} = {value!r}"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def show(least: int, message: str, level: int = logging.INFO) -> None:
    """Write what the bus logs to stderr, where the project's LOGGING does not show it."""
    if level >= least and not is_logged(level):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {message}\n")


def is_logged(level: int) -> bool:
    """Return whether the project's LOGGING shows what the bus logs at a level."""
    # Asked each time: LOGGING is applied anew when a wsgi.py is imported.
    logger = logging.getLogger("django_wspbus")
    return logger.isEnabledFor(level) and (logger.hasHandlers() or level >= logging.WARNING)
