"""Starting a child of the site process by exec, so that it ends with it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from .. import conf
from ..debuggers import reserved_descriptors
from ..terminal import options_of_child
from ..wspbus import STARTUP_DIRECTORY, Refusal
from . import boot
from .sockets import LISTEN_VARIABLES

# systemd would take them as the site's own news, and gunicorn reads its variables from anywhere.
HIDDEN_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_", "GUNICORN_", "DJANGO_WSPBUS_", *LISTEN_VARIABLES)

# An option of Python's own, as in -OW error, -Xdev or -Bm module.
_OPTION = re.compile(
    r"--check-hash-based-pycs|-(?=.)(?P<flags>[^cmWX-]*)((?P<program>[cm].*)|(?P<valued>[WX])(?P<value>.*))?",
    re.DOTALL,
)


def spawn_server(
    alias: str,
    run: str,
    descriptors: Iterable[int],
    overrides: Mapping[str, Any],
    told: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the child of a server: ``function(start, pair)`` of ``run``, "module:function".

    Returns the process, and the site's end of the pair that joins them. To be called in the main
    thread: the kernel ends a child together with the thread that started it.
    """
    environment = child_environment()
    descriptors = list(descriptors)
    ours, theirs = socket.socketpair()
    start = {
        "alias": alias,
        "run": run,
        "site": os.getpid(),
        "path": sys.path,
        "argv": sys.argv,
        "sockets": descriptors,
        "overrides": overrides,
        **told,
    }
    try:
        with (
            theirs,
            options_of_child(reads=conf.is_debug()) as options,
            reserved_descriptors(len(descriptors)) as reserved,
        ):
            ours.sendall(json.dumps(start).encode() + b"\n")
            process = subprocess.Popen(
                # -P: the folder of boot.py has a gunicorn.py that is not gunicorn.
                [
                    *(sys.executable, *interpreter_options(), "-P", boot.__file__),
                    *("serve", alias, str(theirs.fileno())),
                ],
                pass_fds=[theirs.fileno(), *descriptors, *reserved],
                env=environment,
                **options,
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


def spawn_program(
    command: list[str], output: int, pass_fds: Iterable[int], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a program that ends with the site process, in a process group of its own."""
    return subprocess.Popen(
        [*(sys.executable, "-I", "-S", boot.__file__), *("execute", str(os.getpid()), *command)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=list(pass_fds),
        env=environment,
        cwd=STARTUP_DIRECTORY,
        process_group=0,
    )


def interpreter_options() -> list[str]:
    """Return the options that this interpreter was started with: -O, -X ..., -W ..., and the like."""
    options = []
    arguments = iter(sys.orig_argv[1:])
    for argument in arguments:
        match = _OPTION.fullmatch(argument)
        if match is None:
            break
        options += [f"-{match['flags']}"] if match["flags"] else []
        if match["program"]:
            break
        if match["valued"]:
            options.append(f"-{match['valued']}{match['value'] or next(arguments)}")
        elif argument.startswith("--"):
            options += [argument, next(arguments)]
    return options


def own_environment() -> dict[str, str]:
    """Return this process's environment, but for what is addressed to it alone."""
    return {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN_VARIABLES)}


def child_environment() -> dict[str, str]:
    """Return the environment for the child of a server."""
    module = conf.settings_module()
    if module is None:
        raise Refusal(
            "A server in a child process needs a settings module (DJANGO_SETTINGS_MODULE): "
            "settings made by settings.configure() cannot be read again there."
        )
    return {**own_environment(), "DJANGO_SETTINGS_MODULE": module}


def how_ended(status: int) -> str:
    """Return in words how a process ended, from its status as `subprocess` has it."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"with status {status}"
