"""The options of ``runbus`` that override settings."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError

from .addrport import parse_addrport
from .findings import Problem, setting_path
from .keys import MISSING, Option, keys_of
from .project import has_static_files
from .reading import raw_settings
from .schema import Settings
from .sections import ServerSettings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options, and the argument ``address:port``."""
    parser.add_argument("addrport", nargs="?", help="Port, or address:port, to serve on instead of BIND.")
    parser.add_argument("--server", metavar="ALIAS", help="Run only this one of the SERVERS.")
    parser.add_argument(
        *("-6", "--ipv6"), action="store_true", dest="use_ipv6", help="Serve on an IPv6 address."
    )
    for key in (*keys_of(ServerSettings), *keys_of(Settings)):
        for option in key.options:
            if option.sets is not MISSING:
                parser.add_argument(option.name, action="store_true", help=option.help)
            else:
                action = "append" if option.is_repeatable else "store"
                parser.add_argument(
                    option.name, action=action, type=option.type, metavar=option.metavar, help=option.help
                )


class Overrides:
    """The options of a command line in the shape of WSPBUS.

    ``only``: the alias of ``--server``, the one server to run; None: all.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        self.only: str | None = options["server"]
        self._sources: dict[str, str] = {}
        self._set_bind(options)
        for key in keys_of(ServerSettings):
            for option in key.options:
                if option.name != "--bind" and is_given(option, options):
                    names = [key.name, *([option.within] if option.within else [])]
                    self._set_of_server(names, value_of(option, options), option.name)
        for key in keys_of(Settings):
            for option in key.options:
                # A dict in DAEMONIZE also names files, so --daemonize does not replace it.
                is_on = option.sets is True and self._raw(key.name)
                if is_given(option, options) and not is_on:
                    self._set([key.name], value_of(option, options), option.name)
        self._check_static_files(options)
        self._alias()

    def _set_bind(self, options: Mapping[str, Any]) -> None:
        bind, option = options["bind"], "--bind"
        if options["addrport"] is not None or options["use_ipv6"]:
            option = "--ipv6" if options["addrport"] is None else "address:port"
            if bind:
                named = "an address:port argument" if option == "address:port" else option
                raise CommandError(f"--bind and {named} mean the same: give one of them.")
            bind = [parse_addrport(options["addrport"], options["use_ipv6"])]
        if bind:
            self._set_of_server(["BIND"], bind, option)

    def _check_static_files(self, options: Mapping[str, Any]) -> None:
        for name in ("nostatic", "insecure"):
            if options[name] and not has_static_files():
                raise CommandError(
                    f"--{name}: this option needs django.contrib.staticfiles, which is not in INSTALLED_APPS."
                )

    def _set(self, keys: list[str], value: Any, option: str) -> None:
        inner = self.values
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = value
        self._sources[setting_path(*keys)] = option

    def _set_of_server(self, keys: list[str], value: Any, option: str) -> None:
        alias = self._alias(option)
        if alias is not None:
            self._set(["SERVERS", alias, *keys], value, option)

    def _alias(self, option: str | None = None) -> str | None:
        """Return the alias of the server that is meant; None if there is none, a CommandError if several."""
        servers = self._raw("SERVERS")
        aliases = list(servers) if isinstance(servers, Mapping) else []
        known = ", ".join(map(repr, aliases))
        if not aliases:
            return None  # the settings are wrong, and reading them says so
        if self.only is not None:
            if self.only not in aliases:
                raise CommandError(f"--server: there is no server {self.only!r}. WSPBUS has {known}.")
            return self.only
        if option is not None and len(aliases) > 1:
            raise CommandError(
                f"{option} applies to one server, and WSPBUS has several: add --server, one of {known}."
            )
        return str(aliases[0])

    def _raw(self, key: str) -> Any:
        raw = raw_settings()
        return raw.get(key) if isinstance(raw, Mapping) else None

    def sourced(self, problem: Problem) -> Problem:
        """Return a finding that names the option instead of the setting it overrides."""
        return dataclasses.replace(problem, path=self._sources.get(problem.path, problem.path))

    def restrict(self, settings: Settings) -> Settings:
        """Return the settings with the one server of ``--server``, or with all."""
        if self.only is None:
            return settings
        return dataclasses.replace(settings, servers={self.only: settings.servers[self.only]})


def is_given(option: Option, options: Mapping[str, Any]) -> bool:
    """Return whether a command line has an option."""
    given = options[option.destination]
    return given is not None and given is not False


def value_of(option: Option, options: Mapping[str, Any]) -> Any:
    """Return the value that an option gives its key."""
    if option.sets is not MISSING:
        return option.sets
    value = options[option.destination]
    return option.type(value) if isinstance(value, str) else value  # text, where code calls the command
