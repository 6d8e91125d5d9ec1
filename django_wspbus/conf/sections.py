"""The keys of the dicts in WSPBUS: a server, RECYCLE, a plugin, DAEMONIZE, AUTORELOAD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import values
from .addresses import Address
from .findings import Place, setting_path
from .keys import Option, key, keys_of, plain, read_section

GUNICORN = "django_wspbus.servers.gunicorn.GunicornServer"
THREADED = "django_wspbus.servers.threaded.ThreadedServer"
LEADER_ALIAS = "leader"
"""The alias of the leader process, which neither a server nor a program may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recycle:
    """RECYCLE: when a server replaces a worker. None: never for that reason."""

    requests: int | None = key(
        values.optional_count,
        None,
        doc="the number of requests that a worker answers; up to 10 % more, so that not all go at once",
    )
    memory: int | None = key(
        values.optional_size,
        None,
        doc=(
            'the private memory of a worker: bytes, or a size like `"500MB"` (500,000,000 bytes), '
            '`"500MiB"`; up to 10 % more'
        ),
    )
    age: float | None = key(
        values.optional_timeout,
        None,
        doc="seconds for which a worker serves; up to 10 % more",
    )

    @property
    def is_active(self) -> bool:
        return (self.requests, self.memory, self.age) != (None, None, None)


def read_recycle(place: Place, raw: Any) -> Recycle:
    if isinstance(raw, Mapping):
        return read_section(Recycle, place, raw)
    place.wrong(raw, 'a dict like {"REQUESTS": 10000, "MEMORY": "500MB", "AGE": 86400}')
    return Recycle()


def write_recycle(recycle: Recycle) -> dict[str, Any]:
    return {name: value for name, value in plain(recycle).items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """One entry of SERVERS."""

    alias: str
    backend: str = key(
        values.dotted,
        GUNICORN,
        doc="the dotted path of a server: see [servers](servers.md)",
    )
    bind: tuple[Address, ...] = key(
        values.binds,
        "127.0.0.1:8000",
        doc="an address, or a list of addresses",
        options=(
            Option(
                "--bind",
                "Address to serve on instead of BIND; repeatable.",
                metavar="ADDRESS",
                is_repeatable=True,
            ),
        ),
    )
    application: str | None = key(
        values.optional_dotted,
        None,
        doc="the dotted path of a WSGI application; `None`: that of `WSGI_APPLICATION`, else Django's own",
    )
    mounts: Mapping[str, str] = key(
        values.mounts,
        {},
        doc='WSGI applications beside it, each under a prefix: `{"/legacy": "other.wsgi.app"}`',
    )
    options: Mapping[str, Any] = key(
        values.options,
        {},
        doc="the server's own settings",
        options=(
            Option(
                "--workers", "Number of workers, instead of that in OPTIONS.", "N", type=int, within="workers"
            ),
            Option(
                "--threads",
                "Threads of each worker, instead of those in OPTIONS.",
                "N",
                type=int,
                within="threads",
            ),
            Option(
                "--nothreading",
                "Answer one request at a time, all in one thread (Django's own server).",
                sets=False,
                within="threading",
            ),
        ),
    )

    request_timeout: float | None = key(
        values.optional_timeout,
        None,
        doc=(
            "seconds without progress after which a request counts as stuck, and its worker is replaced: see "
            "[operations](operations.md#replace-workers); `None`: never"
        ),
    )
    recycle: Recycle = key(
        read_recycle,
        {},
        write=write_recycle,
        doc=(
            '`{"REQUESTS": 10000, "MEMORY": "500MB", "AGE": 86400}`: when a worker is replaced; see '
            "[below](#recycle)"
        ),
    )

    def path(self, *keys: str) -> str:
        """Return the path of this entry, or of a key of it, in the settings."""
        return setting_path("SERVERS", self.alias, *keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginSettings:
    """One entry of PLUGINS."""

    backend: str = key(values.dotted, doc="the dotted path of a plugin, or of a function that makes one")
    options: Mapping[str, Any] = key(values.options, {}, doc="its keyword arguments")


@dataclass(frozen=True, kw_only=True, slots=True)
class Daemonize:
    """DAEMONIZE, where it is on."""

    stdout: Path | None = key(
        values.optional_path, None, doc="the file for the standard output of the daemon; `None`: no file"
    )
    stderr: Path | None = key(
        values.optional_path, None, doc="the file for its standard error; `None`: no file"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Autoreload:
    """AUTORELOAD, where it is on."""

    extra_files: tuple[Path, ...] = key(
        values.paths,
        [],
        doc='files to watch besides those of modules and templates: `[BASE_DIR / ".env"]`',
    )
    extra_dirs: Mapping[Path, str] = key(
        values.globs,
        {},
        doc='directories to watch, each with a glob: `{BASE_DIR / "texts": "**/*.md"}`',
    )
    spare: bool = key(
        values.boolean,
        True,
        doc=(
            "`True`: a second interpreter waits that has imported the standard library and Django: "
            "see [development](development.md#the-warm-spare)"
        ),
    )
    preload: tuple[str, ...] = key(
        values.modules,
        [],
        doc='packages and modules that this interpreter imports, too: `["numpy", "PIL.Image"]`',
    )
    poll: bool | None = key(
        values.optional_boolean,
        None,
        doc=(
            "`True`: look at every file once a second; `False`: never, where the system reports changes; "
            "`None`: only on file systems that report none (see [development](development.md#reloading))"
        ),
    )


def read_servers(place: Place, raw: Any) -> Mapping[str, ServerSettings]:
    if not isinstance(raw, Mapping) or not raw:
        place.wrong(raw, "a dict of at least one server: alias -> {BACKEND, BIND, ...}")
        return MappingProxyType({})
    servers = {}
    for alias, server in raw.items():
        here = place.at(alias)
        if not isinstance(alias, str) or not alias:
            here.wrong(alias, "a string as its alias")
        elif alias == LEADER_ALIAS:
            here.add("E027", f"{alias!r} is the name of a process of the site.", "Choose another alias.")
        elif not isinstance(server, Mapping):
            here.wrong(server, f"a dict of {', '.join(each.name for each in keys_of(ServerSettings))}")
        else:
            servers[alias] = read_section(ServerSettings, here, server, alias=alias)
    return MappingProxyType(servers)


def read_plugins(place: Place, raw: Any) -> tuple[PluginSettings, ...]:
    if not values.is_list(raw):
        place.wrong(raw, 'a list of {"BACKEND": dotted path, "OPTIONS": {}}')
        return ()
    plugins = []
    for index, plugin in enumerate(raw):
        here = place.at(index)
        if isinstance(plugin, Mapping):
            plugins.append(read_section(PluginSettings, here, plugin))
        else:
            here.wrong(plugin, 'a dict: {"BACKEND": dotted path, "OPTIONS": {}}')
    return tuple(plugins)


def read_daemonize(place: Place, raw: Any) -> Daemonize | None:
    if raw is True or isinstance(raw, Mapping):
        return read_section(Daemonize, place, {} if raw is True else raw)
    if raw is not None and raw is not False:
        place.wrong(raw, 'True, False or {"STDOUT": path, "STDERR": path}')
    return None


def read_autoreload(place: Place, raw: Any) -> Autoreload | None:
    if raw is True or isinstance(raw, Mapping):
        return read_section(Autoreload, place, {} if raw is True else raw)
    if raw is not None and raw is not False:
        names = ", ".join(each.name for each in keys_of(Autoreload))
        place.wrong(raw, f"None, True, False, or a dict of {names}")
    return None
