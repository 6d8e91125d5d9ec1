"""``manage.py wspbus``: the actions of ``python -m django_wspbus``, for the site of this project."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand

from ... import conf
from ...command.choosing import Own
from ...command.parser import add_actions
from ...command.run import run
from ...successor import start


class Command(BaseCommand):
    help = (
        "Operates the running site of this project: shows its state, reloads, restarts, scales or stops it."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_actions(parser, "--settings", "--pythonpath")

    def handle(self, *args: Any, **options: Any) -> None:
        own = Own(conf.settings_module() or "", start.original().directory)
        if status := run(Namespace(**options), own, with_colours=not options["no_color"]):
            sys.exit(status)
