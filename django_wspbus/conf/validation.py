"""The shape of WSPBUS: one method for each key, and a finding for each thing that is wrong."""

from __future__ import annotations

import difflib
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.utils.functional import Promise

from . import addresses as address
from .addresses import Address
from .findings import Problem

DEFAULT_BACKEND = "django_wspbus.servers.gunicorn.GunicornServer"
DEFAULT_BIND = "127.0.0.1:8000"
DEFAULT_STOP_TIMEOUT = 25
SERVER_KEYS = ("BACKEND", "BIND", "APPLICATION", "MOUNTS", "OPTIONS")
AUTORELOAD_KEYS = ("EXTRA_FILES", "EXTRA_DIRS", "SPARE", "PRELOAD", "POLL")
BUS_METHODS = ("start", "stop", "graceful", "restart", "exit")

MOST_SECONDS = 10**9
"""A timeout of 31 years: longer ones are more than the system's clocks can count."""

MOST_IDENTITY = 2**32 - 2
"""The highest number of a user or group; the next one means "none" to the system."""

UNCATCHABLE = ("SIGKILL", "SIGSTOP")


class Reader:
    """Reads WSPBUS into plain values, and gathers all that is wrong in ``problems``."""

    def __init__(self, raw: Any, *, debug: bool) -> None:
        self.raw = raw
        self.debug = debug
        self.problems: list[Problem] = []

    def read(self) -> dict[str, Any] | None:
        """Return {the key in lower case: its value}; None if there is nothing to read."""
        if not isinstance(self.raw, Mapping):
            self.wrong("WSPBUS", self.raw, "a dict")
            return None
        keys: dict[str, Callable[[str, Any], Any]] = {
            "SERVERS": self.servers,
            "AUTORELOAD": self.autoreload,
            "SIGNALS": self.signals,
            "DAEMONIZE": self.daemonize,
            "PIDFILE": self.optional_path,
            "USER": self.user,
            "GROUP": self.user,
            "UMASK": self.umask,
            "PLUGINS": self.plugins,
            "STATIC_FILES": self.static_files,
            "WARMUP": self.warmup,
            "READY_TIMEOUT": self.timeout,
            "DRAIN_DELAY": self.delay,
            "STOP_TIMEOUT": self.timeout,
            "HEALTH": self.health,
            "CONTROL": self.control,
        }
        self.check_keys("WSPBUS", self.raw, keys)
        # A value that is left out is the default of conf.Settings, but for those read from nothing.
        values: dict[str, Any] = {}
        for key, read in keys.items():
            if key in self.raw or key in ("SERVERS", "AUTORELOAD", "PLUGINS", "SIGNALS", "DAEMONIZE"):
                values[key.lower()] = read(f'WSPBUS["{key}"]', self.raw.get(key, MISSING))
        self.check_health(values)
        self.check_delay(values)
        self.check_autoreload(values)
        return values

    # Findings

    def add(self, id: str, path: str, message: str, hint: str | None = None) -> None:  # noqa: A002
        self.problems.append(Problem(id, path, message, hint))

    def wrong(self, path: str, got: Any, takes: str) -> None:
        self.add("E002", path, f"got {shown(got)}.", f"It takes {takes}.")

    def check_keys(self, path: str, mapping: Mapping[Any, Any], known: Iterable[str]) -> None:
        known = list(known)
        for key in mapping:
            if key not in known:
                near = difflib.get_close_matches(str(key).upper(), known, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}."
                self.add("E001", f"{path}[{_quote(key)}]", f"there is no key {key!r}.", hint)

    # Keys

    def servers(self, path: str, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, Mapping) or not raw:
            self.wrong(path, raw, "a dict of at least one server: alias -> {BACKEND, BIND, ...}")
            return {}
        servers = {}
        for alias, server in raw.items():
            here = f"{path}[{_quote(alias)}]"
            if not isinstance(alias, str) or not alias:
                self.wrong(here, alias, "a string as its alias")
            elif not isinstance(server, Mapping):
                self.wrong(here, server, f"a dict of {', '.join(SERVER_KEYS)}")
            else:
                self.check_keys(here, server, SERVER_KEYS)
                servers[alias] = self.server(here, server)
        self.check_shared(servers)
        return servers

    def server(self, path: str, raw: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "backend": self.dotted(f'{path}["BACKEND"]', raw.get("BACKEND", DEFAULT_BACKEND)),
            "bind": self.bind(f'{path}["BIND"]', raw.get("BIND", DEFAULT_BIND)),
            "application": self.optional_dotted(f'{path}["APPLICATION"]', raw.get("APPLICATION")),
            "mounts": self.mounts(f'{path}["MOUNTS"]', raw.get("MOUNTS", {})),
            "options": self.options(f'{path}["OPTIONS"]', raw.get("OPTIONS", {})),
        }

    def bind(self, path: str, raw: Any) -> tuple[Address, ...]:
        binds = [raw] if isinstance(raw, str) else raw
        if not _is_list(binds) or not binds:
            self.wrong(path, raw, f"an address or a list of addresses: {address.FORMS}")
            return ()
        addresses = []
        for bind in binds:
            if not isinstance(bind, str):
                self.wrong(path, bind, f"addresses as strings: {address.FORMS}")
                continue
            try:
                addresses.append(address.parse(bind))
            except ValueError as error:
                self.add("E003", path, str(error), f"It takes {address.FORMS}.")
        return tuple(addresses)

    def check_shared(self, servers: Mapping[str, Mapping[str, Any]]) -> None:
        seen: list[tuple[str, Address]] = []
        for alias, server in servers.items():
            for bind in server["bind"]:
                path = f'WSPBUS["SERVERS"]["{alias}"]["BIND"]'
                for other, taken in seen:
                    if bind.clashes_with(taken):
                        whose = "twice here" if other == alias else f"by the server {other!r} too"
                        self.add(
                            "E004",
                            path,
                            f"{bind} is bound {whose}" + (f", as {taken}." if taken != bind else "."),
                            "Each address takes one server.",
                        )
                        break
                seen.append((alias, bind))

    def mounts(self, path: str, raw: Any) -> dict[str, str]:
        if not isinstance(raw, Mapping):
            self.wrong(path, raw, 'a dict of prefix -> dotted path: {"/legacy": "other.wsgi.app"}')
            return {}
        mounts = {}
        for prefix, application in raw.items():
            here = f"{path}[{_quote(prefix)}]"
            if not isinstance(prefix, str) or not prefix.startswith("/") or prefix.endswith("/"):
                self.wrong(here, prefix, 'a prefix that begins with a slash and ends without one: "/legacy"')
            else:
                mounts[prefix] = self.dotted(here, application)
        return mounts

    def options(self, path: str, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, Mapping) or not all(isinstance(key, str) for key in raw):
            self.wrong(path, raw, "a dict of the server's own settings")
            return {}
        return dict(raw)

    def autoreload(self, path: str, raw: Any) -> bool | dict[str, Any]:
        if raw is MISSING or raw is None:
            return self.debug
        if isinstance(raw, bool):
            return raw
        if not isinstance(raw, Mapping):
            self.wrong(path, raw, f"None, True, False, or a dict of {', '.join(AUTORELOAD_KEYS)}")
            return False
        self.check_keys(path, raw, AUTORELOAD_KEYS)
        files, dirs = raw.get("EXTRA_FILES", []), raw.get("EXTRA_DIRS", {})
        if not _is_list(files) or not all(_is_path(file) for file in files):
            self.wrong(f'{path}["EXTRA_FILES"]', files, "a list of paths")
        if not isinstance(dirs, Mapping) or not all(
            _is_path(folder) and isinstance(glob, str) for folder, glob in dirs.items()
        ):
            self.wrong(
                f'{path}["EXTRA_DIRS"]', dirs, 'a dict of directory -> glob: {BASE_DIR / "texts": "*.md"}'
            )
        if not isinstance(raw.get("SPARE", True), bool):
            self.wrong(f'{path}["SPARE"]', raw["SPARE"], "True or False")
        preload = raw.get("PRELOAD", [])
        if not _is_list(preload) or not all(map(_is_module_name, preload)):
            self.wrong(f'{path}["PRELOAD"]', preload, 'a list of packages or modules: ["numpy", "PIL.Image"]')
        if not isinstance(raw.get("POLL"), bool | None):
            self.wrong(f'{path}["POLL"]', raw["POLL"], "None, True or False")
        return dict(raw)

    def check_autoreload(self, values: dict[str, Any]) -> None:
        """A daemon has no terminal to show what is wrong with an edit: it does not reload."""
        if values["daemonize"] is None or values["autoreload"] is False:
            return
        if self.raw.get("AUTORELOAD") is None:  # DEBUG has not been asked for that
            values["autoreload"] = False
        else:
            message = "a site that reloads by itself cannot be a daemon."
            self.add(
                "E018", 'WSPBUS["AUTORELOAD"]', message, "Leave out DAEMONIZE, or set AUTORELOAD to False."
            )

    def signals(self, path: str, raw: Any) -> dict[str, str | None]:
        if raw is MISSING:
            return {}
        if not isinstance(raw, Mapping):
            self.wrong(path, raw, 'a dict of signal name -> bus method or channel: {"SIGUSR2": "restart"}')
            return {}
        known = [name.name for name in signal.Signals]
        for name, action in raw.items():
            here = f"{path}[{_quote(name)}]"
            if name not in known:
                near = difflib.get_close_matches(str(name).upper(), known, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else None
                self.add("E007", here, f"there is no signal {name!r} on this system.", hint)
            elif name in UNCATCHABLE:
                self.add("E008", here, f"{name} cannot be caught by any process.")
            if action is not None and (not isinstance(action, str) or not action):
                self.wrong(
                    here, action, "the name of a bus method or of a channel, or None to leave it alone"
                )
            elif action is not None and action not in BUS_METHODS:
                near = difflib.get_close_matches(action.lower(), BUS_METHODS, n=1, cutoff=0.8)
                if near:
                    message = (
                        f"no bus method is called {action!r}: the signal publishes on a channel of that name."
                    )
                    self.add("W001", here, message, f"Did you mean {near[0]!r}?")
        return dict(raw)

    def daemonize(self, path: str, raw: Any) -> dict[str, Path | None] | None:
        if raw is MISSING or raw is None or raw is False:
            return None
        if raw is True:
            return {"stdout": None, "stderr": None}
        if not isinstance(raw, Mapping):
            self.wrong(path, raw, 'True, False or {"STDOUT": path, "STDERR": path}')
            return None
        self.check_keys(path, raw, ("STDOUT", "STDERR"))
        return {
            key.lower(): self.optional_path(f'{path}["{key}"]', raw.get(key)) for key in ("STDOUT", "STDERR")
        }

    def user(self, path: str, raw: Any) -> str | int | None:
        if raw is None or (isinstance(raw, str) and raw):
            return raw
        if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
            if raw > MOST_IDENTITY:
                self.add(
                    "E015", path, f"got {shown(raw)}.", f"It takes a name, or a number up to {MOST_IDENTITY}."
                )
            return raw
        self.wrong(path, raw, "a name or a number, or None")
        return None

    def umask(self, path: str, raw: Any) -> int | None:
        takes = 'a number from 0 to 0o777, also as an octal string like "027", or None'
        if raw is None:
            return None
        if isinstance(raw, str):
            try:
                raw = int(raw, 8)
            except ValueError:
                self.wrong(path, raw, takes)
                return None
        if isinstance(raw, bool) or not isinstance(raw, int):
            self.wrong(path, raw, takes)
            return None
        if not 0 <= raw <= 0o777:
            self.add("E015", path, f"got {raw:#o}.", f"It takes {takes}.")
        return raw

    def plugins(self, path: str, raw: Any) -> list[dict[str, Any]]:
        if raw is MISSING:
            return []
        if not _is_list(raw):
            self.wrong(path, raw, 'a list of {"BACKEND": dotted path, "OPTIONS": {}}')
            return []
        plugins = []
        for index, plugin in enumerate(raw):
            here = f"{path}[{index}]"
            if not isinstance(plugin, Mapping):
                self.wrong(here, plugin, 'a dict: {"BACKEND": dotted path, "OPTIONS": {}}')
                continue
            self.check_keys(here, plugin, ("BACKEND", "OPTIONS"))
            plugins.append(
                {
                    "backend": self.dotted(f'{here}["BACKEND"]', plugin.get("BACKEND")),
                    "options": self.options(f'{here}["OPTIONS"]', plugin.get("OPTIONS", {})),
                }
            )
        return plugins

    def static_files(self, path: str, raw: Any) -> bool | None:
        if raw is None or isinstance(raw, bool):
            return raw
        self.wrong(path, raw, "None, which is as DEBUG, or True or False")
        return None

    def warmup(self, path: str, raw: Any) -> tuple[str, ...]:
        if not _is_list(raw) or not all(isinstance(url, str) and url.startswith("/") for url in raw):
            self.wrong(path, raw, 'a list of paths that begin with a slash: ["/"]')
            return ()
        return tuple(raw)

    def timeout(self, path: str, raw: Any) -> float:
        return self.number(path, raw, "a number of seconds above 0", lambda number: number > 0)

    def delay(self, path: str, raw: Any) -> float:
        return self.number(path, raw, "a number of seconds from 0", lambda number: number >= 0)

    def number(self, path: str, raw: Any, takes: str, is_in_range: Callable[[float], bool]) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            self.wrong(path, raw, takes)
        elif not raw <= MOST_SECONDS or not is_in_range(raw):  # what is no number at all is not below any
            self.add("E015", path, f"got {shown(raw)}.", f"It takes {takes}, up to {MOST_SECONDS}.")
        else:
            return raw
        return 1

    def health(self, path: str, raw: Any) -> Address | None:
        if raw is None:
            return None
        addresses = self.bind(path, raw) if isinstance(raw, str) else ()
        if not isinstance(raw, str):
            self.wrong(path, raw, f"one address, {address.FORMS}, or None")
        return addresses[0] if addresses else None

    def check_health(self, values: Mapping[str, Any]) -> None:
        health = values.get("health")
        for alias, server in values["servers"].items():
            if health is not None and any(map(health.clashes_with, server["bind"])):
                message = f"{health} is bound by the server {alias!r} too."
                self.add("E004", 'WSPBUS["HEALTH"]', message, "The probes want an address of their own.")

    def check_delay(self, values: Mapping[str, Any]) -> None:
        delay, whole = values.get("drain_delay", 0), values.get("stop_timeout", DEFAULT_STOP_TIMEOUT)
        if delay >= whole:
            message = f"got {delay!r}, and STOP_TIMEOUT is {whole!r}, of which it is a part."
            self.add("E015", 'WSPBUS["DRAIN_DELAY"]', message, "It takes fewer seconds than STOP_TIMEOUT.")

    def control(self, path: str, raw: Any) -> bool | Path:
        if isinstance(raw, bool):
            return raw
        return self.optional_path(path, raw, takes="True, False or a path") or False

    # Values

    def optional_path(self, path: str, raw: Any, takes: str = "a path, or None") -> Path | None:
        if raw is None:
            return None
        if not _is_path(raw) or not os.fspath(raw) or "\0" in os.fspath(raw):
            self.wrong(path, raw, takes)
            return None
        return Path(raw)

    def optional_dotted(self, path: str, raw: Any) -> str | None:
        return None if raw is None else self.dotted(path, raw)

    def dotted(self, path: str, raw: Any) -> str:
        if isinstance(raw, str) and raw.count(".") and all(part.isidentifier() for part in raw.split(".")):
            return raw
        takes = 'a dotted path to a name in a module, like "package.module.name"'
        if isinstance(raw, str) and raw.count(":") == 1:
            takes += f", so {raw.replace(':', '.')!r} here"
        self.wrong(path, raw, takes)
        return ""


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()


def shown(value: Any) -> str:
    """Return a value as Python writes it, cut to the length that a message can bear."""
    try:
        text = repr(value)
    except Exception:  # of the project's own class, or of a number with too many digits
        text = f"a value of type {type(value).__name__}"
    if isinstance(value, Promise):  # which looks like what it will be
        text = f"a lazy string, {text}"
    return text if len(text) <= 80 else text[:77] + "..."


def _quote(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_module_name(value: Any) -> bool:
    return isinstance(value, str) and all(part.isidentifier() for part in value.split("."))


def _is_path(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str))


def check_option_names(
    path: str, options: Mapping[str, Any], known: Iterable[str], server: str
) -> Iterable[Problem]:
    """Find the OPTIONS that a server does not know."""
    known = list(known)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else None
            if near == [] and len(known) <= 10:
                hint = f"It knows {', '.join(known)}."
            yield Problem("E012", f'{path}["{name}"]', f"{server} has no option {name!r}.", hint)


def check_boolean(path: str, options: Mapping[str, Any], name: str) -> Iterable[Problem]:
    """Find an option that is neither True nor False."""
    value = options.get(name, True)
    if not isinstance(value, bool):
        yield Problem("E012", f'{path}["{name}"]', f"got {shown(value)}.", "It takes True or False.")


def check_positive(path: str, options: Mapping[str, Any], name: str) -> Iterable[Problem]:
    """Find an option that is not a whole number above 0."""
    value = options.get(name, 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        yield Problem("E012", f'{path}["{name}"]', f"got {shown(value)}.", "It takes a whole number above 0.")


def check_writable(id: str, path: str, file: Path, *, replaces: bool = False) -> Iterable[Problem]:  # noqa: A002
    """Check that a file can be written, or, if it is to be replaced as a whole, its directory."""
    directory = file.absolute().parent
    if not directory.is_dir():
        yield Problem(id, path, f"there is no directory {str(directory)!r}.")
    elif file.is_dir():
        yield Problem(id, path, f"{str(file)!r} is a directory.")
    elif not replaces and file.exists():
        if not os.access(file, os.W_OK):
            yield Problem(id, path, f"the file {str(file)!r} cannot be written.")
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield Problem(id, path, f"the directory {str(directory)!r} cannot be written.")
