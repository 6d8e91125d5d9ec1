"""``python -m django_wspbus runbus``: ``manage.py runbus`` that starts even if the project's code is broken.

``manage.py`` sets up the project before it runs a command. If the setup fails, no process is left to show the
error in the browser and to try again after a change. This program does both if the settings say DEBUG.
"""

from __future__ import annotations

import dataclasses
import os
import sys

from ..development.launcher import LauncherStart, become
from ..development.site_program import debug
from ..successor.invocation import OWN_VARIABLES
from ..successor.program import execute
from ..successor.start import original
from ..successor.state import SocketState
from ..system.streams import open_missing

MANAGE = "manage.py"
NAME_THEM = "name the settings by --settings or DJANGO_SETTINGS_MODULE"
WITHOUT_RELOAD = ("--noreload", "--daemonize", "--check", "--print-settings")


def serve() -> None:
    open_missing()
    has_script = os.path.isfile(MANAGE)
    if not has_script and not _names_settings():
        raise SystemExit(
            f"There is no {MANAGE} in this directory: change to that of the project, or {NAME_THEM}."
        )
    command = [MANAGE, *sys.argv[1:]] if has_script else ["-m", "django", *sys.argv[1:]]
    sys.argv[:] = [command[1] if command[0] == "-m" else command[0], *sys.argv[1:]]
    try:
        execute(command)
    except Exception as error:
        is_successor = any(name in os.environ for name in OWN_VARIABLES)
        without_reload = any(option in sys.argv for option in WITHOUT_RELOAD)
        if without_reload or is_successor:
            raise
        if debug(error) is not True:  # the site may be in production
            raise
        start = LauncherStart(
            dataclasses.replace(original(), command=command),
            sockets=first_socket(),
            debug=True,
            settings=os.environ.get("DJANGO_SETTINGS_MODULE", ""),
            control=True,
        )
        become(start)


def _names_settings() -> bool:
    options = any(word.partition("=")[0] == "--settings" for word in sys.argv)
    return options or bool(os.environ.get("DJANGO_SETTINGS_MODULE"))


def first_socket() -> list[SocketState]:
    """Bind the addresses of the command line, or the default one, for the page that shows the error.

    SystemExit with the reason if an address cannot be bound, or if the command line is wrong.
    """
    from django.core.management.base import CommandError

    from ..conf.addresses import parse
    from ..conf.addrport import parse_addrport
    from ..servers.sockets import Sockets
    from ..sockets.binding import BACKLOG
    from ..wspbus import Bus, Refusal
    from .commands.runbus import Command

    try:
        options = Command().create_parser(sys.argv[0], "runbus").parse_args(sys.argv[2:])
        binds = options.bind or [parse_addrport(options.addrport, options.use_ipv6)]
        sockets = Sockets(Bus(), {"default": (tuple(map(parse, binds)), BACKLOG)})
        sockets.start()
    except (CommandError, ValueError, Refusal) as error:
        raise SystemExit(f"CommandError: {error}") from None
    return sockets.detach()
