"""The lines that a site prints once it serves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import django

from .. import __version__, conf
from ..development.launch import HEALTH

if TYPE_CHECKING:
    from .assembly import Assembly

PROBES = ("livez", "readyz")


def banner(site: Assembly) -> Iterator[str]:
    """Yield the versions, the settings module, the URLs of each server, and how to quit."""
    yield (
        f"django-wspbus {__version__}, Django {django.get_version()}, "
        f"Python {'.'.join(map(str, sys.version_info[:3]))}, settings {conf.settings_module()!r}"
    )
    width = max(len(server.settings.alias) for server in site.servers)
    for server in site.servers:
        urls = " ".join(bound.url for bound in server.bound())
        yield f"  {server.settings.alias:{width}}  {urls}  ({server.title})"
    for bound in site.sockets.of(HEALTH):
        where = [
            f"{bound.url}{path}" if bound.url.endswith("/") else f"{bound.url} /{path}" for path in PROBES
        ]
        yield f"  {'probes':{width}}  {' '.join(where)}"
    yield "Quit with CONTROL-C."


def restarted(began: float) -> str:
    """Return the line of a site that has restarted; ``began``: when that began, by `time.monotonic`."""
    return f"Restarted in {time.monotonic() - began:.2f} s."
