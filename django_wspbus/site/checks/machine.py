"""Checks of the machine that runs the site: users, groups, files, the engine of the fleet."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from ...conf import Settings, setting_path
from ...conf.checks import check_writable
from ...conf.findings import Problem
from ...fleet.engines import check_engine
from ...servers.base import server_class
from ...sockets.systemd import is_passed
from ...successor.state import Holdings
from .programs import check_programs


def check_machine(settings: Settings, held: Holdings | None = None) -> Iterable[Problem]:
    """Check users, paths and files, but for what the site ``held`` has already."""
    is_running = held is not None
    held = held or Holdings([], None)
    yield from _check_identity("USER", settings.user)
    yield from _check_identity("GROUP", settings.group)
    if settings.pidfile is not None and str(settings.pidfile) != held.pidfile:
        yield from check_writable("E010", setting_path("PIDFILE"), settings.pidfile, replaces=True)
    if settings.daemonize is not None and not is_running:  # else its output is open
        for key, file in (("STDOUT", settings.daemonize.stdout), ("STDERR", settings.daemonize.stderr)):
            if file is not None:
                yield from check_writable("E011", setting_path("DAEMONIZE", key), file)
    for server in settings.servers.values():
        for address in server.bind:
            is_held = str(address) in held.addresses or is_passed(address)
            if address.kind == "unix" and not is_held:
                yield from check_writable("E011", server.path("BIND"), Path(address.path), replaces=True)
        yield from server_class(server).check_machine(server)
    yield from check_programs(settings.processes)
    yield from check_engine(settings.fleet)


def _check_identity(key: str, name: str | int | None) -> Iterable[Problem]:
    if name is None:
        return
    path = setting_path(key)
    own = os.geteuid() if key == "USER" else os.getegid()
    number = name
    if isinstance(name, str):
        try:
            number = pwd.getpwnam(name).pw_uid if key == "USER" else grp.getgrnam(name).gr_gid
        except KeyError:
            yield Problem("E009", path, f"there is no {key.lower()} {name!r} on this machine.")
            return
    if os.geteuid() != 0 and number != own:
        yield Problem("E009", path, f"only root may become {name!r}.", "Start it as root, or as that user.")
