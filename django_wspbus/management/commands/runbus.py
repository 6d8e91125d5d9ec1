"""``manage.py runbus``: a parser, and a hand-off to the program of the site or of a child."""

from __future__ import annotations

import gc
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...conf.overrides import Overrides, add_arguments
from ...successor import start
from ...successor.order import Order
from ...successor.state import SiteState
from ...successor.values import UnknownVersion
from ...system.streams import open_missing, survive_lost_output
from ...wspbus.ending import STARTUP_DIRECTORY

# What only the site needs is imported for the site: each child and each dry run executes this command again.


class Command(BaseCommand):
    help = "Serves the site: every server of WSPBUS, on one Web Site Process Bus."
    # The project's checks import its URLconf, which only the processes that serve need.
    requires_system_checks = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        open_missing()  # before this package opens any file
        super().__init__(*args, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser)
        parser.add_argument(
            "--check", action="store_true", help="Validate the settings, load the applications, and exit."
        )
        parser.add_argument(
            "--print-settings", action="store_true", help="Print every setting in force, and exit."
        )
        parser.add_argument("--skip-checks", action="store_true", help="Skip the system checks under DEBUG.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not (options["check"] or options["print_settings"]):
            gc.freeze()  # the modules of Django stay; a collection that visits them takes 20 ms of the start
            survive_lost_output()
        start.original()
        try:
            order, handed_over = Order.take(), SiteState.take()
        except UnknownVersion as error:
            raise CommandError(str(error)) from None
        if STARTUP_DIRECTORY is None:
            raise CommandError("The working directory has been removed: start runbus in another one.")
        if order is not None and "child" in order.values:
            self.serve_child(order, options)
        else:
            self.run_site(order, handed_over, options)

    def run_site(self, order: Order | None, handed_over: SiteState | None, options: dict[str, Any]) -> None:
        from ...children.dry_run import DryRun
        from ...site.program import Program

        program = Program(self, options, handed_over)
        if order is None:
            program.run()
        else:
            program.plan(DryRun(order))

    def serve_child(self, order: Order, options: dict[str, Any]) -> None:
        """Run the function of the server that started this process."""
        from ...children.spawn import run_child

        if options["no_color"]:
            from ...development.runserver import disable_colours

            disable_colours()
        run_child(order, Overrides(options).values)
