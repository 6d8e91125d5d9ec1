"""``python -m django_wspbus runbus``: what ``manage.py runbus`` is, also while the project's code is broken.

``manage.py`` sets up the project before any command of it runs: if that fails, there is nothing to show the
error in a browser, and to start again. This does, if it is certain that the settings say DEBUG.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from .launched import debug, execute
from .launcher import become
from .streams import open_missing

MANAGE = "manage.py"
WITHOUT_RELOAD = ("--noreload", "--daemonize", "--check", "--print-settings")


def main() -> None:
    open_missing()
    command = [MANAGE, *sys.argv[1:]] if os.path.isfile(MANAGE) else ["-m", "django", *sys.argv[1:]]
    sys.argv[:] = [command[1] if command[0] == "-m" else command[0], *sys.argv[1:]]
    try:
        execute(command)
    except Exception as error:
        if sys.argv[1:2] != ["runbus"] or any(option in sys.argv for option in WITHOUT_RELOAD):
            raise
        if debug(error) is not True:  # else it may be in production
            raise
        from .servers.spawn import interpreter_options
        from .wspbus import STARTUP_DIRECTORY

        become(
            command=command,
            options=interpreter_options(),
            directory=STARTUP_DIRECTORY,
            held=first_socket(),
            debug=True,
        )


def first_socket() -> list[dict[str, Any]]:
    """Listen where the command line says, or else where a site without settings would: that shows the error.

    SystemExit with the reason if that cannot be, or the command line is wrong.
    """
    from django.core.management.base import CommandError

    from .development import parse_addrport
    from .management.commands.runbus import Command
    from .servers.address import parse
    from .servers.sockets import BACKLOG, Sockets
    from .wspbus import Bus, Refusal

    try:
        options = Command().create_parser(sys.argv[0], "runbus").parse_args(sys.argv[2:])
        binds = options.bind or [parse_addrport(options.addrport, options.use_ipv6)]
        sockets = Sockets(Bus(), {"default": (tuple(map(parse, binds)), BACKLOG)})
        sockets.start()
    except (CommandError, ValueError, Refusal) as error:
        raise SystemExit(f"CommandError: {error}") from None
    return sockets.give_away()


if __name__ == "__main__":
    main()
