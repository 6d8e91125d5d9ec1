"""The hosts that the error page answers for, as Django does under DEBUG.

Any web site can make its name resolve to this machine (DNS rebinding). A browser then lets the scripts of
that site read the error page. Only the Host header shows the difference.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable

LOCAL = (".localhost", "127.0.0.1", "[::1]")

# As django.http.request.host_validation_re.
NETLOC = re.compile(r"([a-z0-9.-]+|\[[a-f0-9]*:[a-f0-9.:]+\])(?::[0-9]*)?")
ABSOLUTE_TARGET = re.compile(r"https?://([^/?#]*)(?:[/?#].*)?", re.IGNORECASE)


def host_of(netloc: str) -> str | None:
    """Return the host of ``host[:port]``, in lower case; None if it is malformed."""
    match = NETLOC.fullmatch(netloc.lower())
    return match[1].removesuffix(".") if match else None


def is_allowed(target: str, netloc: str, hosts: Iterable[str]) -> bool:
    """Return whether a request is for an allowed host: by its Host header, and by its target if that has one.

    ``hosts``: entries as in ALLOWED_HOSTS, allowed besides `LOCAL`.
    """
    netlocs = [netloc]
    if match := ABSOLUTE_TARGET.fullmatch(target):
        netlocs.append(match[1])
    elif not target.startswith("/") and target != "*":
        return False
    patterns = [each.lower() for each in (*LOCAL, *hosts)]
    return all(
        (host := host_of(each)) is not None and any(_matches(host, pattern) for pattern in patterns)
        for each in netlocs
    )


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("."):
        return host.endswith(pattern) or host == pattern[1:]
    return pattern in ("*", host)


def own_hosts(connection: socket.socket) -> list[str]:
    """Return the address of this machine that a client has connected to, as a Host header names it."""
    if connection.family == socket.AF_UNIX:
        return []  # the client is a proxy, and its own clients name hosts of ALLOWED_HOSTS
    address = str(connection.getsockname()[0]).partition("%")[0].lower()
    mapped = address.removeprefix("::ffff:")
    return [mapped if "." in mapped else f"[{address}]"]
