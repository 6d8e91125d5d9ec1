"""The unit and the socket file for systemd: what ``manage.py wspbus systemd`` prints."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence

from ..conf import Settings, is_debug, settings_module
from ..conf.addresses import Address
from ..conf.written import used_sockets
from ..control.identity import project_name
from ..sockets.binding import BACKLOG, resolve
from ..successor import start
from ..successor.invocation import Invocation
from ..wspbus import Refusal
from .writable import writable_paths

MARGIN = 5
"""Seconds that systemd waits longer than the site does."""

WATCHDOG = 30
"""Seconds without a sign of life of the site process after which systemd restarts it."""

RESTART_PAUSE = 2
"""Seconds before systemd starts a failed site again."""

# The control socket is an abstract Unix socket. PrivateNetwork, PrivateUsers and ProcSubset=pid would hide
# it, and the processes at its ends, from each other.
HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateDevices=yes
DevicePolicy=closed
ProtectSystem=strict
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
KeyringMode=private
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
# Unless a library compiles code while it runs, or calls back from C (JIT compilers, older cffi):
# MemoryDenyWriteExecute=yes
""".splitlines()

HOMES = ("/home", "/root", "/run/user")
TEMPORARY = ("/tmp", "/var/tmp")


def default_name() -> str:
    """Return the name of the units: that of the project."""
    name = project_name(settings_module() or "", start.original().directory)
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name).lstrip(".") or "site"


def unit_files(settings: Settings, name: str, options: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return (file name, text) of the service unit, and of socket units for the addresses of the servers.

    ``options``: options of ``manage.py``, such as ``--settings``, for the command of the unit. A `Refusal`
    says why a site with these settings, or started like this, cannot be a unit.
    """
    check_name(name)
    if settings.daemonize is not None:
        raise Refusal(
            'WSPBUS["DAEMONIZE"] is on: systemd runs the site in the background itself. Turn it off.'
        )
    sockets = sockets_of(settings, name)
    files = {f"{name}.service": service(settings, name, options, list(sockets))}
    for unit, addresses in sockets.items():
        files[f"{unit}.socket"] = socket_unit(settings, name, addresses)
    return [(file, "\n".join(lines)) for file, lines in files.items()]


def check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9:_.-]{1,200}", name) or name.startswith("."):
        raise Refusal(f"{name!r} is no name of a unit: it takes letters, digits, and : - _ .")


# The service


def service(settings: Settings, name: str, options: Sequence[str], sockets: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the service unit."""
    invocation = start.original()
    python, command = words(invocation)
    if is_debug():
        yield "# These settings say DEBUG: print the unit with the settings of production."
    yield "[Unit]"
    yield f"Description={escaped(name)}, a Django site on django-wspbus"
    yield "After=network.target"
    yield "StartLimitIntervalSec=0"
    units = " ".join(f"{each}.socket" for each in sockets)
    if units:
        yield f"Requires={units}"
        yield f"After={units}"
    yield from ("", "[Service]", "Type=notify")
    if units:
        yield f"Sockets={units}"
    yield f"User={settings.user if settings.user is not None else user_of(invocation)}"
    if settings.group is not None:
        yield f"Group={settings.group}"
    yield f"WorkingDirectory={escaped(directory_of(invocation))}"
    if module := invocation.environment.get("DJANGO_SETTINGS_MODULE"):
        yield f"Environment={quoted(f'DJANGO_SETTINGS_MODULE={module}')}"
    yield f"EnvironmentFile=-/etc/{escaped(name)}.env"
    yield f"ExecStart={line([*python, *command, 'runbus', *options])}"
    yield f"ExecReload={reload_command(settings, python)}"
    yield from times(settings)
    yield from ("", "# What the site may not do, and where it may write")
    yield from hardening(settings, invocation, python[0])
    yield from ("", "[Install]", "WantedBy=multi-user.target")
    if units:
        yield f"Also={units}"
    yield ""


def reload_command(settings: Settings, python: Sequence[str]) -> str:
    """Return the command of ``systemctl reload``. It waits for the outcome, if there is a control socket."""
    if settings.control is False:
        return "/bin/kill -USR1 $MAINPID"
    graceful = line([*python, "-m", "django_wspbus", "graceful"])
    where = "--pid $MAINPID" if settings.control is True else line(["--socket", str(settings.control)])
    return f"{graceful} {where}"


def times(settings: Settings) -> Iterator[str]:
    yield "KillMode=mixed"
    yield "Restart=on-failure"
    yield f"RestartSec={RESTART_PAUSE}"
    yield f"TimeoutStartSec={settings.ready_timeout * len(settings.servers) + 6 * MARGIN:g}"
    yield f"TimeoutStopSec={settings.stop_timeout + MARGIN:g}"
    yield f"WatchdogSec={WATCHDOG}"


def hardening(settings: Settings, invocation: Invocation, interpreter: str) -> Iterator[str]:
    """Yield the lines that protect the machine from the site."""
    yield from HARDENING
    directory = directory_of(invocation)
    paths = writable_paths(settings, directory)
    needed = [
        *(*paths, *bound_paths(settings), *used_sockets()),
        *(directory, interpreter, sys.prefix, sys.base_prefix),
    ]
    shares_temporary = any(is_below(each, TEMPORARY) for each in needed)
    yield f"PrivateTmp={'no' if shares_temporary else 'yes'}"
    yield f"ProtectHome={'read-only' if any(is_below(each, HOMES) for each in needed) else 'yes'}"
    runtime = [path for path in paths if path.startswith("/run/")]
    if runtime:
        yield f"RuntimeDirectory={' '.join(quoted(path.removeprefix('/run/')) for path in runtime)}"
        yield "RuntimeDirectoryPreserve=yes"  # systemd's own sockets may be there
    others = [path for path in paths if path not in runtime]
    others += TEMPORARY if shares_temporary else ()
    if others:
        yield f"ReadWritePaths={' '.join(quoted(f'-{path}') for path in others)}"


def bound_paths(settings: Settings) -> Iterator[str]:
    """Yield the paths of the Unix sockets that the site listens on."""
    for server in settings.servers.values():
        yield from (address.path for address in server.bind if address.kind == "unix")


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Return whether a path, or what it leads to, is in one of these folders."""
    places = (path, os.path.realpath(path))
    return any(place == each or place.startswith(each + os.sep) for place in places for each in folders)


def words(invocation: Invocation) -> tuple[list[str], list[str]]:
    """Return the interpreter with its options, and the program that runs management commands."""
    interpreter = invocation.interpreter if os.path.isabs(invocation.interpreter) else sys.executable
    plain = os.path.normpath(interpreter)
    python = [plain if os.path.realpath(plain) == os.path.realpath(interpreter) else interpreter]
    python += invocation.options
    program = invocation.command[0] if invocation.command else "-"
    if program == "-m":
        return python, ["-m", invocation.command[1]]
    if program in ("-", "-c"):
        raise Refusal("systemd needs a file to run: call this command as `python manage.py wspbus systemd`.")
    return python, [os.path.normpath(os.path.join(invocation.directory, program))]


def directory_of(invocation: Invocation) -> str:
    """Return the directory to start the site in: that of the script, if the present one is elsewhere."""
    program = invocation.command[0]
    script, here = os.path.dirname(program), os.path.realpath(invocation.directory)
    project = os.path.realpath(script)
    is_elsewhere = here != project and not here.startswith(project + os.sep)
    return script if os.path.isabs(program) and is_elsewhere else invocation.directory


def user_of(invocation: Invocation) -> str:
    """Return the user that runs the site: that of this process or, for root, the owner of the project."""
    if os.geteuid() != 0:
        return getpass.getuser()
    names = [os.environ.get("SUDO_USER", "root")]
    with contextlib.suppress(KeyError, OSError):
        names.insert(0, pwd.getpwuid(os.stat(directory_of(invocation)).st_uid).pw_name)
    return next((each for each in names if each != "root"), "www-data")


# The sockets


def sockets_of(settings: Settings, name: str) -> dict[str, list[tuple[str, Address]]]:
    """Return (alias, address) of the addresses that systemd can bind, by the name of their socket unit.

    All sockets of a unit have one name, so each name in BIND has a unit of its own.
    """
    found: dict[str, list[tuple[str, Address]]] = {}
    for alias, server in settings.servers.items():
        for address in server.bind:
            if address.kind in ("systemd", "unix") or address.port:
                unit = name if address.name is None else f"{name}-{address.name}"
                found.setdefault(unit, []).append((alias, address))
    return found


def socket_unit(settings: Settings, name: str, addresses: Sequence[tuple[str, Address]]) -> Iterator[str]:
    """Yield the lines of a socket unit."""
    yield "[Unit]"
    yield f"Description=Sockets of {escaped(name)}"
    yield from ("", "[Socket]")
    yield f"Service={name}.service"
    for alias, address in addresses:
        yield f"# {settings.servers[alias].path('BIND')}"
        if address.kind == "systemd":
            yield "# Replace this address by the one to listen on."
        yield f"ListenStream={listen_stream(address)}"
    if any(address.kind == "inet" and address.is_wildcard for _, address in addresses):
        yield "BindIPv6Only=ipv6-only"
    if passed := addresses[0][1].name:
        yield f"FileDescriptorName={passed}"
    yield f"Backlog={max(backlog(settings, alias) for alias, _ in addresses)}"
    if any(address.kind == "unix" for _, address in addresses):
        yield f"SocketMode={0o777 & ~(settings.umask or 0):04o}"
        yield f"SocketUser={settings.user if settings.user is not None else user_of(start.original())}"
        if settings.group is not None:
            yield f"SocketGroup={settings.group}"
        yield "RemoveOnStop=yes"
    yield from ("", "[Install]", "WantedBy=sockets.target", "")


def listen_stream(address: Address) -> str:
    """Return an address as systemd writes it, which takes numbers only."""
    if address.kind == "systemd":
        return "127.0.0.1:8000"
    if address.kind == "unix":
        return escaped(address.path)
    try:
        family, (host, port, *_) = resolve(address)
    except OSError as error:
        raise Refusal(f"{address}: the name of this address is not known here ({error}).") from error
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def backlog(settings: Settings, alias: str) -> int:
    found = settings.servers[alias].options.get("backlog", BACKLOG)
    return found if isinstance(found, int) else BACKLOG


# The syntax of unit files


def escaped(text: str) -> str:
    """Return a text in which systemd sees no specifiers."""
    return text.replace("%", "%%")


def quoted(word: str) -> str:
    """Return a word of a list as systemd reads it."""
    if re.fullmatch(r"[\w@+=:,./-]+", word, re.ASCII):
        return word
    inner = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped(inner)}"'


def line(words: Iterable[str]) -> str:
    """Return a command line, in which systemd replaces no variables."""
    return " ".join(quoted(word).replace("$", "$$") for word in words)
