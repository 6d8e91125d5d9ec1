"""``manage.py wspbus``: the actions of ``python -m django_wspbus``, for the site of this project."""

from __future__ import annotations

import argparse
import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import conf
from ...command.choosing import Own
from ...command.parser import add_actions
from ...command.run import run
from ...successor import start
from ...successor.invocation import Invocation
from ...system.streams import open_missing
from ...wspbus import Refusal

OF_DJANGO = ("settings", "pythonpath")
"""Options of every management command that tell it where the project is."""

SYSTEM_UNITS = "/etc/systemd/system"


class Command(BaseCommand):
    help = "Operates the running site of this project: shows its state, reloads it, stops it, and more."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = add_actions(parser)
        systemd = actions.add_parser("systemd", help="print a service unit and a socket unit for this site")
        systemd.add_argument("--name", metavar="NAME", help="the name of the units; by default the project's")
        systemd.add_argument(
            "--write", metavar="DIRECTORY", type=Path, help="write the files there, and print their paths"
        )
        systemd.add_argument("--json", action="store_true", help="print the files as JSON")
        for each in actions.choices.values():
            for name in OF_DJANGO:
                each.add_argument(f"--{name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "systemd":
            try:
                self.print_units(options)
            except CommandError as error:
                if options["json"]:
                    self.stdout.write(json.dumps({"error": str(error), "status": error.returncode}))
                raise
            return
        open_missing()
        own = Own(conf.settings_module() or "", directories(start.original()))
        if status := run(Namespace(**options), own, with_colours=not options["no_color"]):
            sys.exit(status)

    def print_units(self, options: dict[str, Any]) -> None:
        from ...site.unit import default_name, unit_files  # with the servers, which no other action needs

        settings, problems = conf.read({})
        errors = [problem.line for problem in problems if problem.is_error]
        if settings is None or errors:
            raise CommandError("\n".join(errors))
        given = [word for name in OF_DJANGO if options.get(name) for word in (f"--{name}", options[name])]
        try:
            files = unit_files(settings, options["name"] or default_name(), given)
            if options["write"] is not None:
                files = self.write_units(files, options["write"])
        except Refusal as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{error.filename} cannot be written: {error.strerror}.") from error
        if options["json"]:
            self.stdout.write(json.dumps({"files": dict(files)}))
            return
        for name, text in files:
            self.stdout.write(name if options["write"] is not None else f"# {SYSTEM_UNITS}/{name}\n{text}")

    def write_units(self, files: list[tuple[str, str]], directory: Path) -> list[tuple[str, str]]:
        """Write the files; return them with their paths."""
        for name, text in files:
            (directory / name).write_text(text)
        return [(str(directory / name), text) for name, text in files]


def directories(invocation: Invocation) -> list[str]:
    """Return the directory of the script, if there is one, and that in which the command runs."""
    script = invocation.command[0] if invocation.command else "-"
    path = os.path.join(invocation.directory, script)
    return [invocation.directory] if script.startswith("-") else [os.path.dirname(path), invocation.directory]
