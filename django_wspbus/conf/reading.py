"""Reading WSPBUS: once for the project's own settings, and again for a command line that overrides keys."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from .addresses import Address
from .findings import Place, Problem
from .keys import read_section
from .project import has_static_files, is_debug
from .schema import Settings
from .sections import GUNICORN, THREADED, Autoreload


@functools.cache
def problems() -> tuple[Problem, ...]:
    """Return the mistakes in the project's own settings."""
    return tuple(read()[1])


@functools.cache
def get() -> Settings:
    """Return the project's own settings; `ImproperlyConfigured` if they are wrong."""
    from django.core.exceptions import ImproperlyConfigured

    settings, found = read()
    if settings is None:
        raise ImproperlyConfigured("\n".join(problem.line for problem in found if problem.is_error))
    return settings


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("WSPBUS", "DEBUG"):
        problems.cache_clear()
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_wspbus.conf")


def read(overrides: Mapping[str, Any] | None = None) -> tuple[Settings | None, list[Problem]]:
    """Read the settings; return them, None if they are wrong, and all that is wrong with them.

    ``overrides`` has the shape of WSPBUS; its values replace those of the project.
    """
    raw = raw_settings()
    if overrides and isinstance(raw, Mapping):
        raw = merge(raw, overrides)
    return read_raw(raw, debug=is_debug())


def raw_settings() -> Any:
    """Return what the project wrote, with the default server if it names none."""
    raw = getattr(django_settings, "WSPBUS", {})
    if not isinstance(raw, Mapping) or "SERVERS" in raw:
        return raw
    return {**raw, "SERVERS": {"default": {"BACKEND": THREADED if is_debug() else GUNICORN}}}


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``base`` with the values of ``overrides``, dict by dict.

    A value of ``base`` that should be a dict and is not stays, so that it is found to be wrong.
    """
    merged = dict(base)
    for name, value in overrides.items():
        inner = merged.get(name, {})
        if not isinstance(value, Mapping):
            merged[name] = value
        elif isinstance(inner, Mapping):
            merged[name] = merge(inner, value)
    return merged


def read_raw(raw: Any, *, debug: bool) -> tuple[Settings | None, list[Problem]]:
    """Read a value of WSPBUS; return the settings, None if they are wrong, and the findings."""
    place = Place()
    if not isinstance(raw, Mapping):
        place.wrong(raw, "a dict")
        return None, place.problems
    settings = read_section(Settings, place, raw)
    _check_addresses(place, settings)
    _check_aliases(place, settings)
    _check_delay(place, settings)
    _check_static_files(place, settings)
    settings = _resolve_autoreload(place, settings, debug=debug and raw.get("AUTORELOAD") is None)
    is_wrong = any(problem.is_error for problem in place.problems)
    return None if is_wrong else settings, place.problems


# Keys that depend on each other


def _check_addresses(place: Place, settings: Settings) -> None:
    """Find addresses that are bound twice: by one server, by two, or by a server and the probes."""
    seen: list[tuple[str, Address]] = []
    for alias, server in settings.servers.items():
        here = place.at("SERVERS").at(alias).at("BIND")
        for bind in server.bind:
            clash = next((each for each in seen if bind.clashes_with(each[1])), None)
            if clash is not None:
                other, taken = clash
                whose = "twice here" if other == alias else f"by the server {other!r} too"
                also = "" if taken == bind else f", as {taken}"
                here.add("E004", f"{bind} is bound {whose}{also}.", "Each address takes one server.")
            seen.append((alias, bind))
    health = settings.health
    for alias, server in settings.servers.items():
        if health is not None and any(map(health.clashes_with, server.bind)):
            message = f"{health} is bound by the server {alias!r} too."
            place.at("HEALTH").add("E004", message, "The probes need an address of their own.")


def _check_aliases(place: Place, settings: Settings) -> None:
    for alias in settings.processes:
        if alias in settings.servers:
            message = f"{alias!r} is the alias of a server, too."
            place.at("PROCESSES").at(alias).add("E027", message, "`wspbus restart` has to tell them apart.")


def _check_delay(place: Place, settings: Settings) -> None:
    delay, whole = settings.drain_delay, settings.stop_timeout
    if delay >= whole:
        message = f"got {delay!r}, and STOP_TIMEOUT is {whole!r}, of which it is a part."
        place.at("DRAIN_DELAY").add("E015", message, "It takes fewer seconds than STOP_TIMEOUT.")


def _check_static_files(place: Place, settings: Settings) -> None:
    if settings.static_files and not has_static_files():
        message = "django.contrib.staticfiles is not in INSTALLED_APPS, so no static file is found."
        place.at("STATIC_FILES").add("E017", message, "Install the app, or leave this out.")


def _resolve_autoreload(place: Place, settings: Settings, *, debug: bool) -> Settings:
    """Turn AUTORELOAD on under DEBUG, where it is left out; refuse it for a daemon.

    A daemon has no terminal that could show the mistakes of an edit.
    """
    if settings.daemonize is None:
        return replace(settings, autoreload=Autoreload()) if debug else settings
    if settings.autoreload is not None:
        message = "a site that reloads by itself cannot be a daemon."
        place.at("AUTORELOAD").add("E018", message, "Leave out DAEMONIZE, or set AUTORELOAD to False.")
    return settings
