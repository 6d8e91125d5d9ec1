"""The argument ``address:port``, as ``runserver`` reads it."""

from __future__ import annotations

import re
import socket

from django.core.management.base import CommandError

ADDRPORT = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^:\[\]]+):)?(?P<port>\d+)")
DEFAULT_PORT = "8000"
LIKE_IPV4 = re.compile(r"[0-9.]+")


def parse_addrport(text: str | None, use_ipv6: bool = False) -> str:
    """Return the argument as an address of BIND; a `CommandError` names the mistake.

    ``8080``, ``0.0.0.0:8080``, ``[::1]:8080``, ``localhost:8080``. With ``use_ipv6`` a host name stands for
    its IPv6 address. A host that is left out is that of this machine.
    """
    if use_ipv6 and not socket.has_ipv6:
        raise CommandError("--ipv6: your Python does not support IPv6.")
    match = ADDRPORT.fullmatch(DEFAULT_PORT if text is None else text)
    if match is None:
        raise CommandError(f"{text!r} is not a valid port number or address:port pair.")
    host, port = match["host"], match["port"]
    if not host:
        host = "[::1]" if use_ipv6 else "127.0.0.1"
    elif use_ipv6 and not host.startswith("["):
        host = f"[{_ipv6_of(host)}]"
    return f"{host}:{port}"


def _ipv6_of(host: str) -> str:
    if LIKE_IPV4.fullmatch(host):
        raise CommandError(f"--ipv6: {host!r} is not a valid IPv6 address: give one in brackets, like [::1].")
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET6, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: the text is not a host name
        raise CommandError(f"--ipv6: the host {host!r} has no IPv6 address ({error}).") from None
    return str(found[0][4][0])
