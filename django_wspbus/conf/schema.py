"""The keys of WSPBUS: each field is one, with its reader, default, options of ``runbus`` and sentence.

Reading, the command, ``--print-settings`` and docs/settings.md are made from these fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import values
from .addresses import Address
from .fleet import FleetSettings, read_fleet
from .keys import Option, key, plain
from .processes import ProcessSettings, read_processes
from .sections import (
    Autoreload,
    Daemonize,
    PluginSettings,
    ServerSettings,
    read_autoreload,
    read_daemonize,
    read_plugins,
    read_servers,
)
from .signals import signals
from .values import number_or_name


def plain_or_false(value: Any) -> Any:
    return False if value is None else plain(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The setting WSPBUS, with every default filled in."""

    servers: Mapping[str, ServerSettings] = key(
        read_servers,
        doc="`{alias: server}`: see [below](#servers)",
    )
    processes: Mapping[str, ProcessSettings] = key(
        read_processes,
        {},
        doc=(
            '`{alias: {"COMMAND": [...]}}` or `{"PROGRAM": [...]}`: [programs](processes.md) that run beside '
            "the servers"
        ),
    )
    autoreload: Autoreload | None = key(
        read_autoreload,
        None,
        write=plain_or_false,
        doc="`True`, `False`, or a dict: see [below](#autoreload); `None`: as `DEBUG`, but off in a daemon",
        options=(Option("--noreload", "Turn AUTORELOAD off.", sets=False),),
    )
    signals: Mapping[str, str | None] = key(
        signals,
        {},
        doc=(
            "`{signal name: action or channel}`, merged with the [defaults](#signals); "
            "`None` leaves a signal alone"
        ),
    )
    daemonize: Daemonize | None = key(
        read_daemonize,
        False,
        write=plain_or_false,
        doc='`True`, or `{"STDOUT": path, "STDERR": path}`: run in the background',
        options=(Option("--daemonize", "Run in the background.", sets=True),),
    )
    pidfile: Path | None = key(
        values.optional_path,
        None,
        doc="the path of a file for the site's PID",
        options=(Option("--pidfile", "File for the PID of the site process.", "PATH"),),
    )
    user: str | int | None = key(
        values.identity,
        None,
        doc="the user that the site becomes once the sockets are bound: a name or a number",
        options=(
            Option("--user", "User to become once the sockets are bound.", "NAME", type=number_or_name),
        ),
    )
    group: str | int | None = key(
        values.identity,
        None,
        doc="the group that the site becomes then: a name or a number",
        options=(
            Option("--group", "Group to become once the sockets are bound.", "NAME", type=number_or_name),
        ),
    )
    umask: int | None = key(
        values.umask,
        None,
        write=values.octal,
        doc='the file mode creation mask: a number, or an octal string like `"027"`',
        options=(Option("--umask", "File mode creation mask, in octal.", "OCTAL"),),
    )
    plugins: tuple[PluginSettings, ...] = key(
        read_plugins,
        [],
        doc='`[{"BACKEND": dotted path, "OPTIONS": {}}]`: see [plugins](plugins.md)',
    )
    static_files: bool | None = key(
        values.static_files,
        None,
        doc=(
            "`True`: Django serves static files itself, with `django.contrib.staticfiles`; `False`: it does "
            "not; `None`: as `DEBUG`"
        ),
        options=(
            Option("--insecure", "Serve static files, whatever DEBUG is.", sets=True),
            Option("--nostatic", "Do not serve static files; wins over --insecure.", sets=False),
        ),
    )
    warmup: tuple[str, ...] = key(
        values.urls,
        [],
        doc=(
            'paths, like `["/", "/shop/"]`, that each new worker requests from itself before it is ready; '
            "after a 5xx it is not ready"
        ),
    )
    ready_timeout: float = key(
        values.timeout,
        30,
        doc="seconds that a server, or the dry run of a restart, may take to become ready",
    )
    drain_delay: float = key(
        values.delay,
        0,
        doc=(
            "seconds for which the site goes on serving after readiness turned to 503: a part of "
            "`STOP_TIMEOUT`, which keeps at least two for the rest"
        ),
    )
    stop_timeout: float = key(
        values.timeout,
        25,
        doc=(
            "seconds in all for an exit, from the signal on: about 70 % for requests, and 10 % each for the "
            "listeners of the workers and of the site; see [operations](operations.md#stop)"
        ),
    )
    graceful_timeout: float = key(
        values.timeout,
        300,
        doc=(
            "seconds that a worker which another one replaces may take to finish what it is answering; see "
            "[operations](operations.md#replace-workers)"
        ),
    )
    health: Address | None = key(
        values.optional_address,
        None,
        doc="the address of the [probes](health.md) `/livez` and `/readyz`: a form of `BIND`",
    )
    control: bool | Path = key(
        values.boolean_or_path,
        True,
        doc=(
            "`True`, the path of a file, or `False`: the [control socket](operations.md#the-control-socket)"
        ),
    )
    fleet: FleetSettings | None = key(
        read_fleet,
        None,
        write=plain,
        doc=(
            '`{"NAME": name, "BACKEND": dotted path, "OPTIONS": {}}`: the [fleet](fleet.md) of this site; '
            "`None`: the site is alone"
        ),
    )
    time_for_requests: float | None = None
    """Seconds after which a stop cuts off the requests in flight, which then is no failure. No key of WSPBUS:
    in development the site sets it. None: the share of STOP_TIMEOUT."""
