"""``python -m django_wspbus runbus``: what ``manage.py runbus`` is, also while the project's code is broken.

``manage.py`` sets up the project before any command of it runs: if that fails, there is nothing to show the
error in a browser, and to start again. This does, if it is certain that the settings say DEBUG.
"""

from __future__ import annotations

import dataclasses
import os
import sys

from .development.launched import debug
from .development.launcher import become
from .successor.inheritance import HeldSocket
from .successor.invocation import OWN_VARIABLES
from .successor.program import execute
from .successor.start import original
from .system.streams import open_missing

MANAGE = "manage.py"
WITHOUT_RELOAD = ("--noreload", "--daemonize", "--check", "--print-settings")


def main() -> None:
    open_missing()
    command = [MANAGE, *sys.argv[1:]] if os.path.isfile(MANAGE) else ["-m", "django", *sys.argv[1:]]
    sys.argv[:] = [command[1] if command[0] == "-m" else command[0], *sys.argv[1:]]
    try:
        execute(command)
    except Exception as error:
        is_successor = any(name in os.environ for name in OWN_VARIABLES)
        without_reload = any(option in sys.argv for option in WITHOUT_RELOAD)
        if sys.argv[1:2] != ["runbus"] or without_reload or is_successor:
            raise
        if debug(error) is not True:  # else it may be in production
            raise
        become(dataclasses.replace(original(), command=command), held=first_socket(), debug=True)


def first_socket() -> list[HeldSocket]:
    """Listen where the command line says, or else where a site without settings would: that shows the error.

    SystemExit with the reason if that cannot be, or the command line is wrong.
    """
    from django.core.management.base import CommandError

    from .conf.addresses import parse
    from .development.runserver import parse_addrport
    from .management.commands.runbus import Command
    from .servers.sockets import BACKLOG, Sockets
    from .wspbus import Bus, Refusal

    try:
        options = Command().create_parser(sys.argv[0], "runbus").parse_args(sys.argv[2:])
        binds = options.bind or [parse_addrport(options.addrport, options.use_ipv6)]
        sockets = Sockets(Bus(), {"default": (tuple(map(parse, binds)), BACKLOG)})
        sockets.start()
    except (CommandError, ValueError, Refusal) as error:
        raise SystemExit(f"CommandError: {error}") from None
    return sockets.detach()


if __name__ == "__main__":
    main()
